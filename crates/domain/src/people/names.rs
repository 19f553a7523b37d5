//! Names that people choose: of themselves, of orgs and of workspaces. Others read them in lists and in mail, so nothing in them may
//! break a line or turn around the direction in which a text is read.

use unicode_normalization::UnicodeNormalization;

/// Characters of a name.
pub const MAX_NAME_CHARS: usize = 100;
/// Characters of an id that is made of a name.
const MAX_SLUG_CHARS: usize = 40;

/// What is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameOf {
    /// A person.
    Person,
    /// An org.
    Org,
    /// A workspace.
    Workspace,
    /// An API key.
    Key,
}

impl NameOf {
    fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Org => "org",
            Self::Workspace => "workspace",
            Self::Key => "key",
        }
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing that can be seen.
    #[error("the name of the {} is empty; it must have 1 to {MAX_NAME_CHARS} characters", of.as_str())]
    Empty {
        /// What is named.
        of: NameOf,
    },
    /// Too long.
    #[error("the name of the {} has {chars} characters; the limit is {MAX_NAME_CHARS}", of.as_str())]
    TooLong {
        /// What is named.
        of: NameOf,
        /// How many it has.
        chars: usize,
    },
    /// A character that can't stand in a name.
    #[error(
        "the name of the {} must not contain the character U+{:04X}: control characters, line breaks and characters that change the direction of text are not allowed",
        of.as_str(), u32::from(*character)
    )]
    Character {
        /// What is named.
        of: NameOf,
        /// The first such character.
        character: char,
    },
}

/// A name: 1 to 100 characters on one line, trimmed, in normal form C.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// Reads what someone chose.
    ///
    /// # Errors
    /// When it is empty or too long, or contains a character that no name may contain.
    pub fn parse(of: NameOf, text: &str) -> Result<Self, NameError> {
        let text = text.trim();
        if text.chars().all(is_invisible) {
            return Err(NameError::Empty { of });
        }
        // A text may get a little longer or shorter by normalizing; one of many times the limit is not normalized.
        let chars = text.chars().count();
        if chars > 4 * MAX_NAME_CHARS {
            return Err(NameError::TooLong { of, chars });
        }
        let name: String = text.nfc().collect();
        let chars = name.chars().count();
        if chars > MAX_NAME_CHARS {
            return Err(NameError::TooLong { of, chars });
        }
        match name.chars().find(|c| is_refused(*c)) {
            Some(character) => Err(NameError::Character { of, character }),
            None => Ok(Self(name)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An id to suggest for what has this name: `Crème Brûlée 2` becomes `creme-brulee-2`. `None` if nothing is left of it,
    /// as of a name in another alphabet. It is not unique.
    pub fn slug(&self) -> Option<String> {
        let mut slug = String::new();
        for c in self.0.nfkd().filter(|c| !unicode_normalization::char::is_combining_mark(*c)) {
            if slug.len() >= MAX_SLUG_CHARS {
                break;
            }
            if c.is_ascii_alphanumeric() {
                slug.push(c.to_ascii_lowercase());
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        let slug = slug.trim_end_matches('-');
        (!slug.is_empty()).then(|| slug.to_owned())
    }
}

/// Control characters, separators of lines and paragraphs, and what embeds, overrides or isolates a direction.
fn is_refused(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Spaces, and what is as blank as they are. Joiners belong here: they are allowed in a name but show nothing by themselves.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
                | '\u{2060}'..='\u{2065}' | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
                | '\u{E0000}'..='\u{E0FFF}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::WorkspaceId;

    fn parse(text: &str) -> Result<String, NameError> {
        Name::parse(NameOf::Org, text).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn names_of_all_alphabets_are_kept() {
        for name in
            ["Ann", "Ann O'Neill", "Zoë", "株式会社", "שלום", "علی\u{200c}رضا", "👩‍🚀 crew", "a <b> & c"]
        {
            assert_eq!(parse(&format!(" {name}\n")).as_deref(), Ok(name));
        }
        assert_eq!(parse("Zoe\u{308}").as_deref(), Ok("Zoë"));
        assert_eq!(parse(&"é".repeat(100)).map(|name| name.chars().count()), Ok(100));
    }

    #[test]
    fn an_error_names_what_is_named_and_the_limit() {
        let said = |of, text: &str| Name::parse(of, text).unwrap_err().to_string();
        assert_eq!(
            said(NameOf::Person, " "),
            "the name of the person is empty; it must have 1 to 100 characters"
        );
        assert_eq!(
            said(NameOf::Workspace, &"x".repeat(101)),
            "the name of the workspace has 101 characters; the limit is 100"
        );
        assert!(said(NameOf::Org, "a\u{202E}b").starts_with(
            "the name of the org must not contain the character U+202E: control characters, line breaks"
        ));
    }

    #[test]
    fn blank_and_deceiving_names_are_refused() {
        for blank in ["", " \t", "\u{200B}", "\u{3164}\u{FEFF}", "\u{2060} \u{AD}"] {
            assert_eq!(parse(blank), Err(NameError::Empty { of: NameOf::Org }), "{blank:?}");
        }
        for bad in
            ['\n', '\0', '\u{7F}', '\u{85}', '\u{2028}', '\u{202A}', '\u{202E}', '\u{2066}', '\u{2069}']
        {
            let refused = Err(NameError::Character { of: NameOf::Org, character: bad });
            assert_eq!(parse(&format!("a{bad}b")), refused, "{bad:?}");
        }
        assert!(matches!(parse(&"x".repeat(100_000)), Err(NameError::TooLong { chars: 100_000, .. })));
    }

    #[test]
    fn a_name_suggests_an_id() {
        let slug = |text| Name::parse(NameOf::Workspace, text).unwrap().slug();
        assert_eq!(slug("Crème Brûlée 2").as_deref(), Some("creme-brulee-2"));
        assert_eq!(slug("  My -- App!  ").as_deref(), Some("my-app"));
        assert_eq!(slug("株式会社"), None);
        assert_eq!(slug(&"long ".repeat(20)).unwrap().len(), 39);
    }

    proptest! {
        #[test]
        fn a_name_is_read_again_as_itself_and_its_slug_is_an_id(text in any::<String>(), other in "\\PC{0,120}") {
            for text in [text, other] {
                let Ok(name) = Name::parse(NameOf::Org, &text) else { continue };
                prop_assert!((1..=MAX_NAME_CHARS).contains(&name.as_str().chars().count()));
                prop_assert_eq!(Name::parse(NameOf::Org, name.as_str()), Ok(name.clone()));
                if let Some(slug) = name.slug() {
                    prop_assert!(WorkspaceId::parse(&slug).is_ok() && slug.len() <= MAX_SLUG_CHARS);
                }
            }
        }
    }
}
