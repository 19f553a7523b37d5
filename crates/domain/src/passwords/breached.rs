//! Passwords that were stolen elsewhere: an operator's file of their SHA-1 hashes, searched where it lies.
//!
//! The file is sorted by hash and has one a line: 40 hexadecimal digits and, if wanted, a colon and how often it was seen. That is the form
//! in which Have I Been Pwned hands its list out (40 GB), so nothing of it is kept in memory: a search reads some thirty short pieces.

use std::io::{self, Read, Seek, SeekFrom};

use sha1::{Digest, Sha1};

/// Bytes of a hash.
const HASH_BYTES: usize = 20;
/// Bytes of a hash in hexadecimal digits.
const HEX_BYTES: usize = 40;
/// Bytes of a line with its end: the hash, a colon, a count of up to 20 digits, and the end.
const MAX_LINE_BYTES: usize = HEX_BYTES + 1 + 20 + 2;
/// Bytes read at once: the rest of one line, and the next one.
const PIECE_BYTES: usize = 2 * MAX_LINE_BYTES;
/// Lines that are compared when a file is opened, to find one that is sorted otherwise.
const SAMPLES: u64 = 64;

/// A list of breached passwords in a file.
#[derive(Debug)]
pub struct BreachedPasswords<F> {
    file: F,
    size_bytes: u64,
}

struct Line {
    hash: [u8; HASH_BYTES],
    /// Where it begins.
    start: u64,
    /// Where the next one begins.
    end: u64,
}

impl<F: Read + Seek> BreachedPasswords<F> {
    /// Takes a file, after a look at some of its lines.
    ///
    /// # Errors
    /// When it can't be read, or is seen not to have the form above.
    pub fn open(mut file: F) -> io::Result<Self> {
        let size_bytes = file.seek(SeekFrom::End(0))?;
        let mut list = Self { file, size_bytes };
        let mut before: Option<Line> = None;
        for sample in 0..SAMPLES {
            let Some(line) = list.line_from(size_bytes / SAMPLES * sample)? else { break };
            if before.is_some_and(|before| line.start > before.start && line.hash < before.hash) {
                return Err(malformed(
                    line.start,
                    "is not sorted by hash; take the list that is ordered by hash",
                ));
            }
            before = Some(line);
        }
        Ok(list)
    }

    /// Whether a password is in the list.
    ///
    /// # Errors
    /// When the file can't be read, or a line that was read has another form.
    pub fn contains(&mut self, password: &str) -> io::Result<bool> {
        let wanted: [u8; HASH_BYTES] = Sha1::digest(password.as_bytes()).into();
        // The line, if there is one, begins in this range; `low` is always the beginning of a line.
        let (mut low, mut high) = (0, self.size_bytes);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.line_from(middle)? {
                Some(line) if line.start < high => match line.hash.cmp(&wanted) {
                    std::cmp::Ordering::Equal => return Ok(true),
                    std::cmp::Ordering::Less => low = line.end,
                    std::cmp::Ordering::Greater => high = middle,
                },
                // No line begins between the middle and the end of the range.
                _ => high = middle,
            }
        }
        Ok(false)
    }

    /// The first line that begins at `offset` or after it; `None` at the end.
    fn line_from(&mut self, offset: u64) -> io::Result<Option<Line>> {
        // One byte earlier, so that a line that begins right at the offset is seen to begin there.
        let from = offset.saturating_sub(1);
        let mut buffer = [0u8; PIECE_BYTES];
        let piece = self.read_piece(from, &mut buffer)?;
        let skipped = match (offset, piece.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n')) {
            (0, _) => 0,
            (_, Some(end)) => end + 1,
            (_, None) if piece.len() < MAX_LINE_BYTES => return Ok(None),
            (_, None) => return Err(malformed(from, "has no line end near it")),
        };
        let rest = piece.get(skipped..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let start = from + skipped as u64;
        let length = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None => rest.len(),
        };
        let line = rest.get(..length).filter(|line| line.len() <= MAX_LINE_BYTES);
        let hash = line
            .and_then(read_hash)
            .ok_or_else(|| malformed(start, "is not 40 hexadecimal digits, with or without a count"))?;
        Ok(Some(Line { hash, start, end: start + length as u64 }))
    }

    /// What stands at an offset: the whole buffer, unless the file ends before.
    fn read_piece<'a>(&mut self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self.file.seek(SeekFrom::Start(offset))?;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(buffer.get(..filled).unwrap_or_default())
    }
}

fn read_hash(line: &[u8]) -> Option<[u8; HASH_BYTES]> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (digits, count) = line.split_at_checked(HEX_BYTES)?;
    let is_count = match count {
        [] => true,
        [b':', count @ ..] => !count.is_empty() && count.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let mut hash = [0u8; HASH_BYTES];
    data_encoding::HEXUPPER_PERMISSIVE.decode_mut(digits, &mut hash).ok()?;
    is_count.then_some(hash)
}

fn malformed(offset: u64, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the list of breached passwords at byte {offset} {why}"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn hash_of(password: &str) -> String {
        data_encoding::HEXUPPER.encode(&Sha1::digest(password.as_bytes()))
    }

    /// A file of passwords with what follows each hash, such as `:3\r\n`.
    fn file(passwords: &[String], ends: &[&str]) -> String {
        let mut hashes: Vec<String> = passwords.iter().map(|password| hash_of(password)).collect();
        hashes.sort();
        hashes.iter().zip(ends.iter().cycle()).map(|(hash, end)| format!("{hash}{end}")).collect()
    }

    fn contains(text: &str, password: &str) -> io::Result<bool> {
        BreachedPasswords::open(Cursor::new(text.as_bytes()))?.contains(password)
    }

    #[test]
    fn every_password_of_the_list_is_found_and_no_other() {
        let listed: Vec<String> = (0..200).map(|number| format!("listed {number}")).collect();
        for ends in [
            &["\n"][..],
            &["\r\n"],
            &[":1\n", ":123456789\n"],
            &[":7\r\n", "\n", ":18446744073709551615\r\n"],
        ] {
            let text = file(&listed, ends);
            for text in [text.as_str(), text.trim_end(), &text.to_lowercase()] {
                assert!(listed.iter().all(|password| contains(text, password).unwrap()), "{ends:?}");
                assert!((0..200).all(|number| !contains(text, &format!("other {number}")).unwrap()));
            }
        }
        assert_eq!(hash_of("password"), "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8");
        assert!(contains("5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:9545824\r\n", "password").unwrap());
        assert!(!contains("", "password").unwrap());
    }

    #[test]
    fn another_form_is_an_error() {
        let (hash, long) = (hash_of("x"), "F".repeat(1_000));
        for bad in [
            "password",
            "\n",
            &hash[1..],
            &format!("{hash}:"),
            &format!("{hash}:x"),
            &format!("{hash} 1"),
            &format!("{hash}:123456789012345678901234567890"),
            &hash.replace(&hash[..1], "x"),
            &long,
        ] {
            let error = BreachedPasswords::open(Cursor::new(bad.as_bytes())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad}");
            assert!(
                error.to_string().starts_with("the list of breached passwords at byte 0 is not 40 hex"),
                "{error}"
            );
        }
        let listed: Vec<String> = (0..1_000).map(|number| format!("listed {number}")).collect();
        let by_count: String = listed.iter().map(|password| format!("{}:5\n", hash_of(password))).collect();
        let error = BreachedPasswords::open(Cursor::new(by_count.as_bytes())).unwrap_err();
        assert!(error.to_string().contains("is not sorted by hash"), "{error}");
    }

    /// A file of which only the last line is looked for, and which counts what is read.
    struct Counted(Cursor<Vec<u8>>, usize);

    impl Read for Counted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            // Short reads, as of a pipe or a network disk.
            let end = buffer.len().min(7);
            let count = self.0.read(&mut buffer[..end])?;
            self.1 += count;
            Ok(count)
        }
    }

    impl Seek for Counted {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn a_search_reads_little_of_a_large_file() {
        let listed: Vec<String> = (0..20_000).map(|number| format!("listed {number}")).collect();
        let text = file(&listed, &[":3\r\n"]);
        let mut list = BreachedPasswords::open(Counted(Cursor::new(text.into_bytes()), 0)).unwrap();
        list.file.1 = 0;
        assert!(list.contains("listed 777").unwrap() && !list.contains("other").unwrap());
        assert!(list.file.1 < 2 * 24 * PIECE_BYTES, "{} bytes", list.file.1);
    }

    proptest! {
        #[test]
        fn a_list_of_any_length_is_searched_rightly(
            numbers in prop::collection::btree_set(0u32..500, 0..60),
            end in prop::sample::select(vec!["\n", "\r\n", ":1\n", ":99\r\n"]),
            has_last_end in any::<bool>(),
        ) {
            let listed: Vec<String> = numbers.iter().map(u32::to_string).collect();
            let text = file(&listed, &[end]);
            let text = if has_last_end { text.as_str() } else { text.trim_end() };
            let mut list = BreachedPasswords::open(Cursor::new(text.as_bytes())).unwrap();
            for number in 0..500u32 {
                prop_assert_eq!(list.contains(&number.to_string()).unwrap(), numbers.contains(&number));
            }
        }

        #[test]
        fn no_file_panics_or_hangs(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(mut list) = BreachedPasswords::open(Cursor::new(bytes)) {
                let _ = list.contains("x");
            }
        }
    }
}
