//! Keyset cursors: opaque to clients, stable under inserts, and no deeper page costs more than the first.

use data_encoding::BASE64URL_NOPAD;

/// The place after which a page goes on: the sort value of the last row and what breaks its ties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The sort value (an instant in microseconds, or a position).
    pub value: i64,
    /// The tie-breaker (an id).
    pub id: String,
}

impl Cursor {
    /// The text that clients hand back.
    pub fn encode(&self) -> String {
        BASE64URL_NOPAD.encode(format!("1:{}:{}", self.value, self.id).as_bytes())
    }

    /// Reads a text that `encode` wrote; `None` for anything else.
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let plain = String::from_utf8(bytes).ok()?;
        let (value, id) = plain.strip_prefix("1:")?.split_once(':')?;
        (!id.contains('\0')).then_some(())?;
        Some(Self { value: value.parse().ok()?, id: id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_the_round_trip_and_nothing_else_is_read() {
        let cursor = Cursor { value: -5, id: "a:b".to_owned() };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        for bad in ["", "x", "!!", &BASE64URL_NOPAD.encode(b"2:1:a"), &BASE64URL_NOPAD.encode(b"1:x:a")] {
            assert_eq!(Cursor::decode(bad), None, "{bad}");
        }
    }
}
