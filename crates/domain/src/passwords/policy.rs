//! What a new password must be like: long enough, and not among the first that someone would try. There are no rules about kinds of
//! characters, and nothing is cut off or changed before hashing.

use zxcvbn::feedback::Warning;
use zxcvbn::{Score, zxcvbn};

/// Characters of a password, at least.
pub const MIN_PASSWORD_CHARS: usize = 8;
/// Characters of a password, at most.
pub const MAX_PASSWORD_CHARS: usize = 128;
/// Characters of a password that are judged; more can only make it better. Judging takes longer than in proportion to length: 100
/// characters chosen for it take hundreds of milliseconds, 32 take as long as a hash.
const MAX_JUDGED_CHARS: usize = 32;
/// Words about the owner that are looked for.
const MAX_WORDS: usize = 100;
/// Characters of such a word, at least; shorter ones occur by chance.
const MIN_WORD_CHARS: usize = 3;
/// The name of the product, which every guesser knows.
const PRODUCT: &str = "agentlens";

/// What a guesser knows about whose password it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct PasswordOwner<'a> {
    /// The person's name.
    pub name: &'a str,
    /// The e-mail address.
    pub address: &'a str,
    /// The name of the org.
    pub org: &'a str,
}

/// Why a new password is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedPassword {
    /// Too short.
    #[error("the password has {0} characters; it must have at least {MIN_PASSWORD_CHARS}")]
    TooShort(usize),
    /// Too long.
    #[error("the password has {0} characters; the limit is {MAX_PASSWORD_CHARS}")]
    TooLong(usize),
    /// Among the first that someone would try.
    #[error("the password is too easy to guess: {0}")]
    Guessable(&'static str),
    /// In a list of passwords that were stolen elsewhere.
    #[error(
        "the password was stolen from another service and published, so attackers try it; choose another one"
    )]
    Breached,
}

/// Checks a new password. [`BreachedPasswords`](super::BreachedPasswords) are another check, which reads a file.
///
/// # Errors
/// With the rule that it breaks.
pub fn check_new(password: &str, owner: &PasswordOwner<'_>) -> Result<(), RefusedPassword> {
    check_length(password)?;
    let judged: String = password.chars().take(MAX_JUDGED_CHARS).collect();
    let words = owner.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let entropy = zxcvbn(&judged, &words);
    if entropy.score() >= Score::Three {
        return Ok(());
    }
    if entropy.guesses() < zxcvbn(&judged, &[]).guesses() {
        return Err(RefusedPassword::Guessable(OF_OWNER));
    }
    Err(RefusedPassword::Guessable(reason(entropy.feedback().and_then(|feedback| feedback.warning()))))
}

/// The rule of length alone, which a form for signing in checks too: no account has a longer password.
///
/// # Errors
/// When it is too short or too long.
pub fn check_length(password: &str) -> Result<(), RefusedPassword> {
    match password.chars().count() {
        chars if chars < MIN_PASSWORD_CHARS => Err(RefusedPassword::TooShort(chars)),
        chars if chars > MAX_PASSWORD_CHARS => Err(RefusedPassword::TooLong(chars)),
        _ => Ok(()),
    }
}

impl PasswordOwner<'_> {
    /// Each text as a whole, without its spaces, and its words.
    fn words(&self) -> Vec<String> {
        let mut words = vec![PRODUCT.to_owned()];
        for text in [self.name, self.address, self.org] {
            let text = text.to_lowercase();
            let joined: String = text.split_whitespace().collect();
            let parts = text.split(|c: char| !c.is_alphanumeric()).map(str::to_owned);
            for word in [text.clone(), joined].into_iter().chain(parts) {
                if word.chars().count() >= MIN_WORD_CHARS && words.len() < MAX_WORDS && !words.contains(&word)
                {
                    words.push(word);
                }
            }
        }
        words
    }
}

const OF_OWNER: &str = "it is little more than your name, your address, your org or the name of this product";

/// The reason in our words.
fn reason(warning: Option<Warning>) -> &'static str {
    match warning {
        Some(
            Warning::ThisIsATop10Password | Warning::ThisIsATop100Password | Warning::ThisIsACommonPassword,
        ) => "it is one of the most common passwords",
        Some(Warning::ThisIsSimilarToACommonlyUsedPassword) => "it is like one of the most common passwords",
        Some(Warning::StraightRowsOfKeysAreEasyToGuess | Warning::ShortKeyboardPatternsAreEasyToGuess) => {
            "it is a row or a pattern of keys on the keyboard"
        }
        Some(
            Warning::RepeatsLikeAaaAreEasyToGuess | Warning::RepeatsLikeAbcAbcAreOnlySlightlyHarderToGuess,
        ) => "it repeats the same characters",
        Some(Warning::SequencesLikeAbcAreEasyToGuess) => "it is a sequence such as abc or 6543",
        Some(Warning::RecentYearsAreEasyToGuess | Warning::DatesAreOftenEasyToGuess) => {
            "it is little more than a date or a year"
        }
        Some(Warning::AWordByItselfIsEasyToGuess) => "it is a single word",
        Some(
            Warning::NamesAndSurnamesByThemselvesAreEasyToGuess
            | Warning::CommonNamesAndSurnamesAreEasyToGuess,
        ) => "it is little more than a common name",
        None => "add a few words that have nothing to do with each other",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(password: &str) -> Result<(), RefusedPassword> {
        let owner =
            PasswordOwner { name: "Jane Doeringer", address: "jane.d@quuxcorp.example", org: "Quux Corp" };
        check_new(password, &owner)
    }

    #[test]
    fn length_counts_characters() {
        assert_eq!(check("1234567"), Err(RefusedPassword::TooShort(7)));
        assert_eq!(check("ééééééé"), Err(RefusedPassword::TooShort(7)));
        assert_eq!(check(&"é".repeat(129)), Err(RefusedPassword::TooLong(129)));
        assert_eq!(check_length(&"é".repeat(128)), Ok(()));
        assert_eq!(
            check("abc").unwrap_err().to_string(),
            "the password has 3 characters; it must have at least 8"
        );
    }

    #[test]
    fn any_composition_is_good_if_it_is_hard_to_guess() {
        for good in [
            "purple otter sings twice",
            "kvnwqzxtbgmp",
            "8203461957382046",
            "gr\u{fc}n \u{1F9A6} \u{682A}\u{5F0F} und dann weiter",
            "a\0b\tc\nd e f g 7 q",
            "            x7Q vbn           ",
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn only_the_beginning_is_judged() {
        let good = "purple otter sings twice by the ";
        assert_eq!(good.len(), MAX_JUDGED_CHARS);
        assert_eq!(check(&format!("{good}{}", "a".repeat(96))), Ok(()));
        let refused = Err(RefusedPassword::Guessable("it repeats the same characters"));
        assert_eq!(check(&format!("{}{good}", "a".repeat(MAX_JUDGED_CHARS))), refused);
    }

    #[test]
    fn what_is_guessed_first_is_refused_with_a_reason() {
        let cases = [
            ("password", "it is one of the most common passwords"),
            ("password1", "it is one of the most common passwords"),
            ("iloveyou", "it is one of the most common passwords"),
            ("football", "it is one of the most common passwords"),
            ("P4ssw0rd", "it is like one of the most common passwords"),
            ("drowssap", "it is like one of the most common passwords"),
            ("tgbnhyuj", "it is a row or a pattern of keys on the keyboard"),
            ("aaaaaaaaaaaa", "it repeats the same characters"),
            ("xqzxqzxqzxqz", "it repeats the same characters"),
            ("hijklmnopq", "it is a sequence such as abc or 6543"),
            ("13.11.1987", "it is little more than a date or a year"),
            ("agentlens", OF_OWNER),
            ("agentlens1", OF_OWNER),
            ("doeringer!", OF_OWNER),
            ("quuxcorp99", OF_OWNER),
            ("QuuxC0rpQuuxC0rp", OF_OWNER),
            ("janedoeringer", OF_OWNER),
            ("jane.d@quuxcorp.example", OF_OWNER),
        ];
        for (password, expected) in cases {
            assert_eq!(check(password), Err(RefusedPassword::Guessable(expected)), "{password:?}");
        }
        assert_eq!(
            check("football").unwrap_err().to_string(),
            "the password is too easy to guess: it is one of the most common passwords"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// The judge is a library of many tables; whatever is typed, it answers.
        #[test]
        fn no_password_panics(
            typed in "\\PC{8,128}",
            looking_bad in "[a@4(c3e!1|$5+07 \u{130}\u{df}]{8,128}",
            name in "\\PC{0,100}",
        ) {
            for password in [typed, looking_bad] {
                let _ = check_new(&password, &PasswordOwner { name: &name, address: "a@b.example", org: &name });
            }
        }
    }
}
