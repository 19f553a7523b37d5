//! What commands print: text for people, JSON for programs. The only place that writes to standard output.

use std::io::Write;
use std::process::ExitCode;

/// Prints a line. A closed pipe is no error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a JSON document.
pub(crate) fn json(value: &serde_json::Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Prints an error and gives the exit code of a failure.
pub(crate) fn fail(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "agentlens: {message}");
    ExitCode::FAILURE
}
