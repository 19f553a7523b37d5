//! Marks: what of a prepared body differs from request to request (ids, times), and how it is filled in.
//!
//! A mark is eight bytes that occur nowhere else, or the same as sixteen hexadecimal digits. It stands where a
//! value of the same length belongs, so a body is encoded once, and each request is a copy with its marks overwritten.

use memchr::memmem;

const SIGNATURE: [u8; 4] = [0xfa, 0xce, 0xd0, 0x0d];
const SIGNATURE_HEX: &[u8] = b"faced00d";
/// Marks are numbered below this.
pub(crate) const MAX_NUMBER: u32 = 1 << 18;
/// The unit of times within a body.
const TICK_NS: u64 = 100_000;
/// A time as text is the mark's digits and as many of these as nanoseconds since 1970 have more.
pub(super) const TIME_PADDING: &str = "000";

/// What stands at a place, with its number within the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The first half of a trace's id.
    TraceHead(u32),
    /// The second half.
    TraceTail(u32),
    /// A span's id.
    Span(u32),
    /// A conversation's id.
    Conversation(u32),
    /// So many ticks of 100 us after the body's beginning.
    Time(u32),
}

impl Mark {
    pub(super) fn bytes(self) -> [u8; 8] {
        let (kind, number) = self.parts();
        let [_, high, middle, low] = number.to_be_bytes();
        let [a, b, c, d] = SIGNATURE;
        [a, b, c, d, kind, high, middle, low]
    }

    pub(crate) fn hex(self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn parts(self) -> (u8, u32) {
        match self {
            Self::TraceHead(number) => (0, number),
            Self::TraceTail(number) => (1, number),
            Self::Span(number) => (2, number),
            Self::Conversation(number) => (3, number),
            Self::Time(number) => (4, number),
        }
    }

    fn of(bytes: [u8; 8]) -> Option<Self> {
        let [.., kind, high, middle, low] = bytes;
        let number = u32::from_be_bytes([0, high, middle, low]);
        Some(match kind {
            0 => Self::TraceHead(number),
            1 => Self::TraceTail(number),
            2 => Self::Span(number),
            3 => Self::Conversation(number),
            4 => Self::Time(number),
            _ => return None,
        })
    }

    /// What stands there in the request of that serial number: random to look at, and no two are alike.
    pub(crate) fn id(self, serial: u64) -> u64 {
        let (kind, number) = self.parts();
        scatter((serial << 21) | (u64::from(kind) << 18) | u64::from(number))
    }
}

/// One to one, so different marks and serial numbers never meet (the last step of SplitMix64).
fn scatter(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[derive(Clone, Copy)]
struct Site {
    at: usize,
    mark: Mark,
    is_text: bool,
}

/// A request body whose marks are known.
pub(crate) struct Template {
    body: Vec<u8>,
    sites: Vec<Site>,
}

impl Template {
    pub(crate) fn new(body: Vec<u8>) -> Self {
        let raw = memmem::find_iter(&body, &SIGNATURE).filter_map(|at| {
            let mark = Mark::of(body.get(at..at + 8)?.try_into().ok()?)?;
            Some(Site { at, mark, is_text: false })
        });
        let text = memmem::find_iter(&body, SIGNATURE_HEX).filter_map(|at| {
            let digits = std::str::from_utf8(body.get(at..at + 16)?).ok()?;
            let mark = Mark::of(u64::from_str_radix(digits, 16).ok()?.to_be_bytes())?;
            Some(Site { at, mark, is_text: true })
        });
        let mut sites: Vec<Site> = raw.chain(text).collect();
        // In order, so that a copy is written through once.
        sites.sort_by_key(|site| site.at);
        Self { body, sites }
    }

    /// The body with the ids of that serial number and its times counted from that moment.
    pub(crate) fn stamp(&self, serial: u64, begin_ns: u64) -> Vec<u8> {
        let mut body = self.body.clone();
        for site in &self.sites {
            match (site.mark, site.is_text) {
                (Mark::Time(ticks), false) => {
                    put(&mut body, site.at, &(begin_ns + u64::from(ticks) * TICK_NS).to_le_bytes());
                }
                (Mark::Time(ticks), true) => {
                    let text = (begin_ns + u64::from(ticks) * TICK_NS).to_string();
                    put(&mut body, site.at, text.as_bytes());
                }
                (mark, false) => put(&mut body, site.at, &mark.id(serial).to_be_bytes()),
                (mark, true) => put(&mut body, site.at, &hex(mark.id(serial))),
            }
        }
        body
    }
}

fn put(body: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = body.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Sixteen hexadecimal digits.
fn hex(value: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|index| DIGITS[(value >> (60 - 4 * index)) as usize & 15])
}

/// Sixteen hexadecimal digits as text.
pub(crate) fn hex_text(value: u64) -> String {
    format!("{value:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_and_filled_in_both_forms() {
        let time = format!("{}{TIME_PADDING}", Mark::Time(20).hex());
        let text = format!("id {} at {time}.", Mark::Span(7).hex());
        let body = [text.as_bytes(), &Mark::Span(7).bytes(), &Mark::Time(20).bytes()].concat();
        let begin_ns = 1_700_000_000_000_000_000u64;
        let stamped = Template::new(body).stamp(3, begin_ns);
        let (id, at_ns) = (Mark::Span(7).id(3), begin_ns + 2_000_000);
        let expected =
            [format!("id {} at {at_ns}.", hex_text(id)).as_bytes(), &id.to_be_bytes(), &at_ns.to_le_bytes()]
                .concat();
        assert_eq!(stamped, expected);
    }

    #[test]
    fn ids_of_different_requests_and_marks_differ() {
        let mut ids: Vec<u64> = (0..50)
            .flat_map(|serial| {
                (0..50).flat_map(move |n| [Mark::Span(n), Mark::TraceHead(n)].map(|mark| mark.id(serial)))
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 5000);
    }
}
