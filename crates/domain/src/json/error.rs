//! Why a JSON text was refused, each in one sentence a client can act on.

use thiserror::Error;

/// Why a JSON text was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    /// An object names a key twice. We refuse rather than silently drop what a client sent.
    #[error("The key {path:?} appears more than once in its object.")]
    DuplicateKey {
        /// Where the second one is: keys and array indexes joined by dots.
        path: String,
    },
    /// Objects and arrays are nested deeper than we follow.
    #[error("The JSON is nested deeper than {limit} levels.")]
    TooDeep {
        /// The deepest nesting that is accepted.
        limit: usize,
    },
    /// A number is too large for a double.
    #[error("The number {literal} {} is too large to be represented.", place(path))]
    NumberOutOfRange {
        /// Where it is: keys and array indexes joined by dots, empty for the text itself.
        path: String,
        /// The beginning of the number as it was sent.
        literal: String,
    },
    /// The text is not JSON, or not of the kind that was asked for.
    #[error("The JSON is not valid at byte {offset}: {what}.")]
    Syntax {
        /// The byte at which reading stopped.
        offset: usize,
        /// What was found or missed there.
        what: &'static str,
    },
}

fn place(path: &str) -> String {
    if path.is_empty() { "at the top level".to_owned() } else { format!("at {path:?}") }
}

/// A [`JsonError::Syntax`], as short to write as it is common.
pub(super) fn syntax(offset: usize, what: &'static str) -> JsonError {
    JsonError::Syntax { offset, what }
}
