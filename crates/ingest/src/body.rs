//! Request bodies in gzip, zstd, deflate or plain. Their size is limited before and after decompression.

use std::io::Read;

use bytes::Bytes;

use agentlens_domain::limits::MAX_DECOMPRESSED_BYTES;

/// How many bytes are decompressed before `has_room` is called again.
const STEP_BYTES: u64 = 256 * 1024;

/// Why a body can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// `Content-Encoding` names an unsupported encoding.
    #[error("Content-Encoding must be gzip, zstd, deflate or identity")]
    UnknownEncoding,
    /// The compressed bytes are damaged.
    #[error("the {0} body can't be decompressed")]
    Broken(&'static str),
    /// There is no memory left for more decompressed bytes.
    #[error("the server holds as many bodies as it has room for")]
    NoRoom,
    /// The decompressed body exceeds the limit.
    #[error("the body is larger than {MAX_DECOMPRESSED_BYTES} bytes after decompression")]
    TooLarge,
}

/// Whether a body must be decompressed. The caller does that for large bodies on the blocking pool.
pub fn is_compressed(encoding: Option<&str>) -> bool {
    encoding.is_some_and(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity"))
}

/// Decompresses a body with the given `Content-Encoding`. `has_room` is called with the total number of bytes so far whenever
/// it grew, and stops decompression by returning `false`.
pub fn decompress(
    body: Bytes,
    encoding: Option<&str>,
    has_room: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError> {
    match encoding.map(str::trim) {
        None | Some("") => Ok(body),
        Some(name) if name.eq_ignore_ascii_case("identity") => Ok(body),
        Some(name) if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
            read_bounded(flate2::read::MultiGzDecoder::new(body.as_ref()), "gzip", has_room)
        }
        Some(name) if name.eq_ignore_ascii_case("zstd") => {
            let decoder =
                zstd::stream::read::Decoder::new(body.as_ref()).map_err(|_| BodyError::Broken("zstd"))?;
            read_bounded(decoder, "zstd", has_room)
        }
        // HTTP's `deflate` is the zlib format.
        Some(name) if name.eq_ignore_ascii_case("deflate") => {
            read_bounded(flate2::read::ZlibDecoder::new(body.as_ref()), "deflate", has_room)
        }
        Some(_) => Err(BodyError::UnknownEncoding),
    }
}

fn read_bounded(
    mut reader: impl Read,
    name: &'static str,
    mut has_room: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError> {
    let mut plain = Vec::new();
    loop {
        let read = reader.by_ref().take(STEP_BYTES).read_to_end(&mut plain);
        let read = read.map_err(|_| BodyError::Broken(name))?;
        if plain.len() > MAX_DECOMPRESSED_BYTES {
            return Err(BodyError::TooLarge);
        }
        if !has_room(plain.len()) {
            return Err(BodyError::NoRoom);
        }
        if (read as u64) < STEP_BYTES {
            return Ok(plain.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(plain: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
    }

    fn roomy(_: usize) -> bool {
        true
    }

    #[test]
    fn all_encodings_give_the_plain_body() {
        let plain = Bytes::from_static(b"{\"events\":[]}");
        assert_eq!(decompress(plain.clone(), None, roomy).unwrap(), plain);
        assert_eq!(decompress(gzip(&plain), Some("GZIP"), roomy).unwrap(), plain);
        assert_eq!(
            decompress(zstd::encode_all(plain.as_ref(), 1).unwrap().into(), Some("zstd"), roomy).unwrap(),
            plain
        );
    }

    #[test]
    fn bombs_and_garbage_are_refused() {
        let bomb = gzip(&vec![0u8; MAX_DECOMPRESSED_BYTES + 1]);
        assert_eq!(decompress(bomb.clone(), Some("gzip"), roomy), Err(BodyError::TooLarge));
        let mut asked = 0;
        let little = |bytes| {
            asked = bytes;
            bytes <= 1024 * 1024
        };
        assert_eq!(decompress(bomb, Some("gzip"), little), Err(BodyError::NoRoom));
        assert!(asked <= 2 * 1024 * 1024, "{asked} bytes came out before it was refused");
        assert_eq!(
            decompress(Bytes::from_static(b"nonsense"), Some("gzip"), roomy),
            Err(BodyError::Broken("gzip"))
        );
        assert_eq!(
            decompress(Bytes::from_static(b"nonsense"), Some("zstd"), roomy),
            Err(BodyError::Broken("zstd"))
        );
        assert_eq!(decompress(Bytes::new(), Some("br"), roomy), Err(BodyError::UnknownEncoding));
    }
}
