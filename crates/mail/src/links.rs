//! Links: the server's public address, and pages on it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Characters of a token.
const MAX_TOKEN_CHARS: usize = 512;

/// The address under which people reach the server, such as `https://lens.example`. Every link begins with it; what a request says
/// about its host is never used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Url);

/// Why a text is not a public address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublicUrl {
    /// Not an address at all, or not one of the web.
    #[error(
        "the public URL must begin with https:// or http:// and name a host, such as https://lens.example"
    )]
    NotWeb,
    /// It says more than where the server is.
    #[error(
        "the public URL must be a scheme, a host and perhaps a port, such as https://lens.example:8443; it must not have a user, a path, a query or a fragment"
    )]
    MoreThanOrigin,
}

/// A page that mail leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Signing in.
    Login,
    /// Proving that an address is one's own.
    Verify,
    /// Choosing a new password.
    Reset,
    /// Accepting an invitation.
    Invite,
}

impl Page {
    /// The path of the page.
    pub fn path(self) -> &'static str {
        match self {
            Self::Login => "/login",
            Self::Verify => "/verify",
            Self::Reset => "/reset",
            Self::Invite => "/invite",
        }
    }
}

impl FromStr for PublicUrl {
    type Err = InvalidPublicUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPublicUrl> {
        let url = Url::parse(text.trim()).map_err(|_| InvalidPublicUrl::NotWeb)?;
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
            return Err(InvalidPublicUrl::NotWeb);
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidPublicUrl::MoreThanOrigin);
        }
        Ok(Self(url))
    }
}

impl PublicUrl {
    /// The origin, without a slash at the end: `https://lens.example`.
    pub fn origin(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// The host: a name in ASCII, or an IP address.
    pub fn host(&self) -> Option<Host<&str>> {
        self.0.host()
    }

    /// Whether browsers reach the server over TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// A page of the server.
    pub fn page(&self, page: Page) -> String {
        format!("{}{}", self.origin(), page.path())
    }

    /// A page of the server that reads a token from the fragment. Whoever has the link has the token.
    pub fn link(&self, page: Page, token: &LinkToken) -> String {
        format!("{}{}#{}", self.origin(), page.path(), token.reveal())
    }
}

/// A token that a link carries. It is a secret: `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkToken(String);

/// A text that can't stand in a fragment as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token must have 1 to {MAX_TOKEN_CHARS} characters of a-z, A-Z, 0-9, `_`, `-`, `.` and `~`")]
pub struct InvalidToken;

impl LinkToken {
    /// Accepts what needs no escaping in an address.
    ///
    /// # Errors
    /// When the text is empty, too long, or has other characters.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidToken> {
        let text = text.into();
        let is_plain =
            |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'_' | b'-' | b'.' | b'~');
        if text.is_empty() || text.len() > MAX_TOKEN_CHARS || !text.bytes().all(is_plain) {
            return Err(InvalidToken);
        }
        Ok(Self(text))
    }

    /// The token itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LinkToken {
    type Error = InvalidToken;

    fn try_from(text: String) -> Result<Self, InvalidToken> {
        Self::new(text)
    }
}

impl From<LinkToken> for String {
    fn from(token: LinkToken) -> Self {
        token.0
    }
}

impl fmt::Debug for LinkToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LinkToken(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_origin() {
        for (text, origin) in [
            ("https://lens.example", "https://lens.example"),
            (" https://Lens.Example:443/ ", "https://lens.example"),
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("http://[::1]:4318/", "http://[::1]:4318"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
        ] {
            assert_eq!(text.parse::<PublicUrl>().unwrap().origin(), origin, "{text}");
        }
        for text in
            ["", "lens.example", "/x", "ftp://lens.example", "javascript:alert(1)", "https://", "mailto:a@b"]
        {
            assert_eq!(text.parse::<PublicUrl>(), Err(InvalidPublicUrl::NotWeb), "{text}");
        }
        for text in [
            "https://a@lens.example",
            "https://:b@lens.example",
            "https://lens.example/x",
            "https://lens.example?a",
            "https://lens.example/#a",
        ] {
            assert_eq!(text.parse::<PublicUrl>(), Err(InvalidPublicUrl::MoreThanOrigin), "{text}");
        }
    }

    #[test]
    fn tokens_stand_in_the_fragment() {
        let public_url: PublicUrl = "https://lens.example:8443/".parse().unwrap();
        let token = LinkToken::new("al_Xy-9.~").unwrap();
        assert_eq!(public_url.page(Page::Login), "https://lens.example:8443/login");
        assert_eq!(public_url.link(Page::Reset, &token), "https://lens.example:8443/reset#al_Xy-9.~");
    }

    #[test]
    fn a_token_needs_no_escaping_and_is_not_shown() {
        for text in ["", "a b", "a#b", "a&b", "a\nb", "a%20", "<a>", "ä", &"a".repeat(MAX_TOKEN_CHARS + 1)] {
            assert_eq!(LinkToken::new(text), Err(InvalidToken), "{text}");
        }
        assert_eq!(format!("{:?}", LinkToken::new("secret").unwrap()), "LinkToken(hidden)");
    }
}
