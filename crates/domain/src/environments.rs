//! Environments: the words by which senders keep production, previews and sandboxes apart.
//!
//! An event belongs to the environment that it names, else to that of its key. A workspace has three of its own and takes as many
//! new ones as [`MAX_ENVIRONMENTS`](crate::limits::MAX_ENVIRONMENTS) says; events that name further ones belong to [`OTHER`].

use crate::limits::MAX_ENVIRONMENT_BYTES;

/// The environments that every workspace has.
pub const STANDARD: [&str; 3] = ["production", "staging", "development"];

/// The environment of events whose own has no room in the workspace, or whose name is none.
pub const OTHER: &str = "other";

/// Why a text does not name an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// It is too long.
    #[error("has {0} bytes; the limit is {MAX_ENVIRONMENT_BYTES} bytes")]
    TooLong(usize),
    /// It holds a line break or another control character.
    #[error("must not hold control characters")]
    Control,
}

/// Whether every workspace has it.
pub fn is_standard(name: &str) -> bool {
    name == OTHER || STANDARD.contains(&name)
}

/// Reads a name that someone chose. `None` for a blank text.
pub fn parse(text: &str) -> Result<Option<&str>, EnvironmentError> {
    let name = text.trim();
    if name.len() > MAX_ENVIRONMENT_BYTES {
        return Err(EnvironmentError::TooLong(name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err(EnvironmentError::Control);
    }
    Ok((!name.is_empty()).then_some(name))
}

/// Reads a name out of data that must not be refused for it: what can't be a name is [`OTHER`].
pub fn read(text: &str) -> Option<&str> {
    parse(text).unwrap_or(Some(OTHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_sane_word_is_a_name() {
        for name in ["production", "prod", "preview/pr-12", "bedrock-agentcore:default", "тест", "Dev Alice"]
        {
            assert_eq!(parse(&format!(" {name}\n")), Ok(Some(name)));
        }
        assert_eq!(parse("  "), Ok(None));
        let long = "é".repeat(MAX_ENVIRONMENT_BYTES);
        assert_eq!(parse(&long), Err(EnvironmentError::TooLong(2 * MAX_ENVIRONMENT_BYTES)));
        assert_eq!(parse("a\u{1b}b"), Err(EnvironmentError::Control));
        assert_eq!(
            (read(&long), read("a\nb"), read(" a "), read("")),
            (Some(OTHER), Some(OTHER), Some("a"), None)
        );
    }
}
