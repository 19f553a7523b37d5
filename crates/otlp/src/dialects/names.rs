//! Short texts for typed columns.

use agentlens_domain::limits;

/// A name that fits a column: trimmed, not empty, without NUL (PostgreSQL texts can't hold it) and cut at the limit.
pub(super) fn clean(text: &str) -> Option<String> {
    let text = text.trim();
    let cut = &text[..text.floor_char_boundary(limits::MAX_NAME_BYTES)];
    if cut.is_empty() {
        return None;
    }
    if !cut.contains('\0') {
        return Some(cut.to_owned());
    }
    // The replacement is longer than what it replaces.
    let replaced: String = cut.replace('\0', "?");
    Some(replaced)
}

/// As [`clean`], for ids.
pub(super) fn clean_id(text: &str) -> Option<String> {
    const { assert!(limits::MAX_ID_BYTES == limits::MAX_NAME_BYTES) };
    clean(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_their_columns() {
        assert_eq!(clean("  a\0b "), Some("a?b".to_owned()));
        assert_eq!(clean(" \n"), None);
        assert_eq!(clean(&"é".repeat(300)).unwrap().len(), 256);
    }
}
