//! E-mail addresses: where mail is sent to, and the key by which an account is found.
//!
//! The part before the @ is ASCII. Other alphabets hold characters whose lower case is an ASCII letter (the Kelvin sign and `k`),
//! so that a stranger's address could get the key of someone else's. The domain is kept in ASCII, as IDNA maps it (UTS 46):
//! `bücher.example` and `xn--bcher-kva.example` are one domain.

use std::fmt;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// Characters of an address, and bytes of it with its domain in ASCII (RFC 5321: a path of 256 with its brackets).
pub const MAX_EMAIL_CHARS: usize = 254;
/// Characters before the @ (RFC 5321).
pub const MAX_LOCAL_CHARS: usize = 64;

/// Characters that may stand before the @ beside letters, digits and single dots (RFC 5322, `atext`). There are no quotes,
/// spaces, brackets or comments among them.
const LOCAL_SYMBOLS: &str = "!#$%&'*+-/=?^_`{|}~";

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// Nothing but spaces.
    #[error("the e-mail address is empty")]
    Empty,
    /// Longer than any address may be.
    #[error("the e-mail address has more than {MAX_EMAIL_CHARS} characters")]
    TooLong,
    /// No @, or more than one.
    #[error("the e-mail address must contain exactly one @")]
    At,
    /// The part before the @ can't be one.
    #[error(
        "the part before the @ must be 1 to {MAX_LOCAL_CHARS} of a-z, 0-9, single dots and {LOCAL_SYMBOLS}"
    )]
    Local,
    /// The part after the @ can't be a domain.
    #[error("the part after the @ must be a domain, such as example.com")]
    Domain,
}

/// An address that mail can be sent to.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress {
    /// The part before the @ as it was typed, and the domain in lower-case ASCII.
    text: String,
    /// The same in lower case.
    key: String,
    /// Where the @ is.
    at: usize,
}

impl EmailAddress {
    /// Reads what someone typed.
    ///
    /// # Errors
    /// When it is not one plain address: names (`Ann <ann@example.com>`), quotes, comments and IP addresses are refused.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EmailError::Empty);
        }
        if text.chars().nth(MAX_EMAIL_CHARS).is_some() {
            return Err(EmailError::TooLong);
        }
        let (local, domain) = text.split_once('@').ok_or(EmailError::At)?;
        if domain.contains('@') {
            return Err(EmailError::At);
        }
        if !is_local(local) {
            return Err(EmailError::Local);
        }
        let domain = ascii_domain(domain).ok_or(EmailError::Domain)?;
        let text = format!("{local}@{domain}");
        if text.len() > MAX_EMAIL_CHARS {
            return Err(EmailError::TooLong);
        }
        Ok(Self { key: text.to_ascii_lowercase(), text, at: local.len() })
    }

    /// The address to send mail to. It is personal data: write [`masked`](Self::masked) into logs.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What accounts are found by: the address in lower case. Dots and `+tags` stay, because only the domain's own server
    /// knows whether they matter.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The domain in lower-case ASCII.
    pub fn domain(&self) -> &str {
        self.key.get(self.at + 1..).unwrap_or_default()
    }

    /// The address with most of it hidden, to be shown to someone who may know it: `j***@e***.com`.
    pub fn masked(&self) -> String {
        let domain = self.domain();
        let ending = domain.rfind('.').and_then(|dot| domain.get(dot..)).unwrap_or_default();
        format!("{}***@{}***{ending}", first(&self.text), first(domain))
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmailAddress({})", self.masked())
    }
}

/// Reads a domain as a part of an address is read: to lower-case ASCII, `None` if it is none.
pub fn ascii_domain(text: &str) -> Option<String> {
    let mapped = Uts46::new().to_ascii(
        text.as_bytes(),
        AsciiDenyList::STD3,
        Hyphens::CheckFirstLast,
        DnsLength::Verify,
    );
    let domain = mapped.ok()?.into_owned();
    // No top-level domain is a number: this is an IP address.
    let ending = domain.rsplit('.').next().unwrap_or_default();
    (!ending.bytes().all(|byte| byte.is_ascii_digit())).then_some(domain)
}

fn is_local(local: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || LOCAL_SYMBOLS.contains(c);
    local.len() <= MAX_LOCAL_CHARS
        && local.split('.').all(|word| !word.is_empty() && word.chars().all(is_allowed))
}

fn first(text: &str) -> &str {
    text.get(..1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> String {
        EmailAddress::parse(text).unwrap().key().to_owned()
    }

    #[test]
    fn an_address_keeps_its_spelling_and_has_a_key() {
        let address = EmailAddress::parse("  Jane.Doe+news@Example.COM\n").unwrap();
        assert_eq!(address.as_str(), "Jane.Doe+news@example.com");
        assert_eq!(address.key(), "jane.doe+news@example.com");
        assert_eq!(address.domain(), "example.com");
        assert_eq!(key("admin@localhost"), "admin@localhost");
        assert_eq!(key("o'brien@example.ie"), "o'brien@example.ie");
    }

    #[test]
    fn all_spellings_of_a_domain_are_one() {
        let spellings =
            ["a@bücher.example", "A@BÜCHER.example", "a@xn--bcher-kva.example", "a@bu\u{308}cher。example"];
        assert!(spellings.iter().all(|text| key(text) == "a@xn--bcher-kva.example"));
        // The Kelvin sign is a k, but only where the domain system says so too.
        assert_eq!(key("a@\u{212A}ite.example"), "a@kite.example");
        assert_eq!(EmailAddress::parse("\u{212A}ate@example.com"), Err(EmailError::Local));
        assert_ne!(key("a.b@example.com"), key("ab@example.com"));
    }

    #[test]
    fn what_is_no_plain_address_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long_domain = format!("a@{}example.com", "abcdefghi.".repeat(25));
        let cases = [
            ("  ", EmailError::Empty),
            ("jane", EmailError::At),
            ("a@b@example.com", EmailError::At),
            ("a@example.com,b@example.com", EmailError::At),
            ("@example.com", EmailError::Local),
            (".a@example.com", EmailError::Local),
            ("a..b@example.com", EmailError::Local),
            ("a b@example.com", EmailError::Local),
            ("\"a\"@example.com", EmailError::Local),
            ("a(b)@example.com", EmailError::Local),
            ("Ann <ann@example.com>", EmailError::Local),
            ("a\0b@example.com", EmailError::Local),
            ("a\r\nBcc: b@example.com", EmailError::Local),
            ("ä@example.com", EmailError::Local),
            (&long_local, EmailError::Local),
            ("a@", EmailError::Domain),
            ("a@example..com", EmailError::Domain),
            ("a@example.com.", EmailError::Domain),
            ("a@exa mple.com", EmailError::Domain),
            ("a@example.com\u{0}", EmailError::Domain),
            ("a@%65xample.com", EmailError::Domain),
            ("a@-example.com", EmailError::Domain),
            ("a@xn--a.example", EmailError::Domain),
            ("a@127.0.0.1", EmailError::Domain),
            ("a@[127.0.0.1]", EmailError::Domain),
            (&long_domain, EmailError::TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(EmailAddress::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(
            EmailError::Local.to_string(),
            "the part before the @ must be 1 to 64 of a-z, 0-9, single dots and !#$%&'*+-/=?^_`{|}~"
        );
    }

    #[test]
    fn a_masked_address_hides_names() {
        let masked = |text| EmailAddress::parse(text).unwrap().masked();
        assert_eq!(masked("Jane@example.com"), "J***@e***.com");
        assert_eq!(masked("jane@mail.example.co.uk"), "j***@m***.uk");
        assert_eq!(masked("admin@localhost"), "a***@l***");
        let debug = format!("{:?}", EmailAddress::parse("jane@example.com").unwrap());
        assert_eq!(debug, "EmailAddress(j***@e***.com)");
    }

    fn address() -> impl Strategy<Value = String> {
        ("[a-z0-9+_-]{1,12}(\\.[a-z0-9]{1,8}){0,2}", "([a-zäöüß\u{3b1}-\u{3c9}]{1,10}\\.){1,2}[a-z]{2,6}")
            .prop_map(|(local, domain)| format!("{local}@{domain}"))
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,300}", raw in any::<String>()) {
            for text in [text, raw] {
                if let Ok(address) = EmailAddress::parse(&text) {
                    prop_assert!(address.as_str().is_ascii() && address.as_str().len() <= MAX_EMAIL_CHARS);
                    prop_assert!(!address.as_str().bytes().any(|byte| byte <= b' ' || byte == 127));
                    prop_assert_eq!(address.as_str().matches('@').count(), 1);
                }
            }
        }

        #[test]
        fn a_key_is_its_own_key_and_all_spellings_have_it(text in address()) {
            let Ok(address) = EmailAddress::parse(&text) else { return Ok(()) };
            let of_key = EmailAddress::parse(address.key()).unwrap();
            prop_assert_eq!(of_key.key(), address.key());
            prop_assert_eq!(of_key.as_str(), address.key());
            for spelling in [format!(" {text}\t"), text.to_uppercase(), address.as_str().to_owned()] {
                // ß and the final sigma are letters of their own in domains, and have the capitals of others.
                if text.contains(['ß', 'ς']) && spelling == text.to_uppercase() {
                    continue;
                }
                let read = EmailAddress::parse(&spelling).unwrap();
                prop_assert_eq!(read.key(), address.key(), "{}", spelling);
            }
        }
    }
}
