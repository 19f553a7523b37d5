//! What commands print: text for people, JSON for programs. The only place that writes to standard output.

use std::borrow::Cow;
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

/// Prints a hint beside the answer.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "agentlens: {text}");
}

/// Prints an error and gives the exit code of a failure.
pub(crate) fn fail(message: &str) -> ExitCode {
    note(message);
    ExitCode::FAILURE
}

/// A text from outside as part of a line: what could move the cursor or begin a new line is escaped.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let escape = |character: char| -> String {
        if is_control(character) { character.escape_default().collect() } else { character.to_string() }
    };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Control characters, line and paragraph separators, and what changes the direction of text.
pub(crate) fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Rows under a head, in columns.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    pub(crate) fn new(head: &[&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)] }
    }

    /// Adds a row; texts from outside may be in it.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| plain(&cell).into_owned()));
    }

    /// Prints it, each column as wide as its widest cell. Without rows nothing is printed, not even the head.
    pub(crate) fn print(&self) {
        if self.rows.len() == 1 {
            return;
        }
        let width_of =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width_of);
        for row in &self.rows {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            line(cells.join("  ").trim_end());
        }
    }
}

/// A count with its noun: `1 chain`, `2 chains`, `1 batch`, `2 batches`.
pub(crate) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(0);
    match number {
        1 => format!("1 {noun}"),
        _ if noun.ends_with("ch") || noun.ends_with('s') => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_plural() {
        assert_eq!(count(1_usize, "chain"), "1 chain");
        assert_eq!(count(0_i64, "session"), "0 sessions");
        assert_eq!(count(2_u64, "batch"), "2 batches");
    }

    #[test]
    fn foreign_texts_stay_on_their_line() {
        assert_eq!(plain("Acme, Inc. \"ü\""), "Acme, Inc. \"ü\"");
        assert_eq!(plain("a\nb\u{1b}[2J\u{202e}"), "a\\nb\\u{1b}[2J\\u{202e}");
    }
}
