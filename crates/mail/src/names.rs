//! What people chose and others read in mail: names of people and orgs, labels of keys.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Characters of a name as it is shown; longer ones are cut.
const MAX_CHARS: usize = 60;
/// What is shown instead of a name in which nothing can be seen.
const NO_NAME: &str = "(no name)";
/// Invisible; keeps mail programs from making a link of `acme.example`.
const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';

/// A name that fits into a line, a header and a sentence, whatever someone typed.
///
/// Line breaks and control characters become spaces. Characters that change the direction of text, and invisible ones, are dropped.
/// Long names are cut. In bodies, [`Name::unlinked`] also keeps mail programs from turning parts of it into links: otherwise anyone
/// could name an org `Prize at evil.example` and have this server mail it to strangers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name, made harmless.
    pub fn new(text: &str) -> Self {
        let name = one_line(text, MAX_CHARS);
        let is_visible = |letter: char| !letter.is_whitespace() && !matches!(letter, '\u{200c}' | '\u{200d}');
        Self(if name.chars().any(is_visible) { name } else { NO_NAME.to_owned() })
    }

    /// The name as it is, for headers.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name for a body: it looks the same, but no part of it is taken for a link.
    pub fn unlinked(&self) -> String {
        let mut unlinked = String::with_capacity(self.0.len() + 8);
        let mut letters = self.0.chars().peekable();
        while let Some(letter) = letters.next() {
            unlinked.push(letter);
            let goes_on = letters.peek().is_some_and(|next| !next.is_whitespace());
            if goes_on && matches!(letter, '.' | ':' | '/' | '@') {
                unlinked.push(ZERO_WIDTH_NON_JOINER);
            }
        }
        unlinked
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A text as one line of at most `max_chars` characters; three dots stand for what was cut.
pub(crate) fn one_line(text: &str, max_chars: usize) -> String {
    let mut line = String::new();
    let mut chars = 0;
    let mut is_gap = false;
    for letter in text.chars().filter(|letter| !is_invisible(*letter)) {
        if letter.is_whitespace() || letter.is_control() {
            is_gap = !line.is_empty();
            continue;
        }
        let more = 1 + usize::from(is_gap);
        if chars + more > max_chars {
            while chars >= max_chars {
                chars -= usize::from(line.pop().is_some());
            }
            line.push('…');
            return line;
        }
        if is_gap {
            line.push(' ');
            is_gap = false;
        }
        line.push(letter);
        chars += more;
    }
    line
}

/// Characters that are not seen but change how others are: those that turn the direction of text around, and invisible ones that have
/// no use in a name. The two joiners stay, as Persian, Hindi and pictures of several people need them.
fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_without_hidden_characters() {
        for (text, name) in [
            ("Acme", "Acme"),
            ("  Zoë \t von\u{a0}Düsseldorf ", "Zoë von Düsseldorf"),
            ("Acme\r\nBcc: victim@example.com", "Acme Bcc: victim@example.com"),
            ("a\u{2028}b\u{2029}c\u{85}d\u{b}e\0f\u{1b}[31m", "a b c d e f [31m"),
            ("\u{202e}gro.live\u{202c} \u{2066}x\u{2069}\u{feff}", "gro.live x"),
            ("می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("👩\u{200d}🔬", "👩\u{200d}🔬"),
            ("", NO_NAME),
            (" \u{200b}\u{200d}\n", NO_NAME),
        ] {
            assert_eq!(Name::new(text).as_str(), name, "{text:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_once() {
        for text in ["x".repeat(10_000), "é ".repeat(10_000), format!("{} y", "x".repeat(59))] {
            let name = Name::new(&text);
            assert!(name.as_str().chars().count() <= MAX_CHARS, "{name}");
            assert!(name.as_str().ends_with('…'), "{name}");
            assert_eq!(Name::new(name.as_str()), name);
        }
        let fits = "x".repeat(MAX_CHARS);
        assert_eq!(Name::new(&fits).as_str(), fits);
    }

    #[test]
    fn nothing_in_a_name_is_taken_for_a_link() {
        let unlinked = |text: &str| Name::new(text).unlinked();
        assert_eq!(unlinked("St. Mary's & Co."), "St. Mary's & Co.");
        assert_eq!(unlinked("acme.example"), "acme.\u{200c}example");
        for text in ["https://evil.example/x?y=z", "ann@evil.example", "www.evil.example", "tel:+15550100"] {
            let shown = unlinked(text);
            assert_eq!(shown.replace(ZERO_WIDTH_NON_JOINER, ""), text);
            for link in ["://", "evil.example", "@evil", "www.evil", "tel:+"] {
                assert!(!shown.contains(link), "{shown}");
            }
        }
    }
}
