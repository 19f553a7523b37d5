//! The cookies of browsers: who is signed in, which sign-in is half done, and which browser has signed in before.

use axum::http::{HeaderMap, HeaderValue, header};

/// What a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieKind {
    /// The session.
    Session,
    /// A sign-in that waits for its second factor, or for a provider.
    Flow,
    /// A browser that has signed in before.
    Device,
}

impl CookieKind {
    fn name(self) -> &'static str {
        match self {
            Self::Session => "al_session",
            Self::Flow => "al_flow",
            Self::Device => "al_device",
        }
    }

    /// How long the browser keeps it, in seconds. What the server knows of it may end sooner.
    fn max_age_s(self) -> u32 {
        match self {
            Self::Session => 30 * 86_400,
            Self::Flow => 600,
            Self::Device => 365 * 86_400,
        }
    }
}

/// How cookies are set: where the public address is `https`, they are for it alone (`__Host-`) and never sent without encryption.
#[derive(Debug, Clone, Copy)]
pub struct Cookies {
    /// Whether browsers come over `https`.
    pub is_secure: bool,
}

impl Cookies {
    /// The value of a request's cookie. Of two with the same name, neither is taken: one of them was put there by someone else.
    pub fn read(self, headers: &HeaderMap, kind: CookieKind) -> Option<&str> {
        let name = self.name(kind);
        let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut found = values.flat_map(|value| value.split(';')).filter_map(|pair| {
            let (its_name, value) = pair.trim().split_once('=')?;
            (its_name == name).then_some(value)
        });
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Whether a header sets this cookie.
    pub(crate) fn is_of(self, value: &HeaderValue, kind: CookieKind) -> bool {
        let name = value.to_str().ok().and_then(|text| text.split_once('=')).map(|(name, _)| name);
        name == Some(self.name(kind).as_str())
    }

    /// Sets a cookie.
    pub fn set(self, headers: &mut HeaderMap, kind: CookieKind, value: &str) {
        self.append(headers, kind, value, kind.max_age_s());
    }

    /// Takes a cookie away.
    pub fn clear(self, headers: &mut HeaderMap, kind: CookieKind) {
        self.append(headers, kind, "", 0);
    }

    fn name(self, kind: CookieKind) -> String {
        format!("{}{}", if self.is_secure { "__Host-" } else { "" }, kind.name())
    }

    fn append(self, headers: &mut HeaderMap, kind: CookieKind, value: &str, max_age_s: u32) {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let cookie = format!(
            "{}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}",
            self.name(kind)
        );
        // Values are tokens of ours: letters, digits, `_`, `-` and `.`.
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::COOKIE, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_cookie_is_read_by_its_whole_name() {
        let (plain, secure) = (Cookies { is_secure: false }, Cookies { is_secure: true });
        let sent = headers(&["a=1; al_session=x; __Host-al_session=y;al_sessions=z"]);
        assert_eq!(plain.read(&sent, CookieKind::Session), Some("x"));
        assert_eq!(secure.read(&sent, CookieKind::Session), Some("y"));
        assert_eq!(plain.read(&sent, CookieKind::Flow), None);
        assert_eq!(plain.read(&headers(&["al_session=x; al_session=y"]), CookieKind::Session), None);
        assert_eq!(plain.read(&headers(&["al_session=x", "al_session=y"]), CookieKind::Session), None);
    }

    #[test]
    fn cookies_are_for_the_server_alone() {
        let mut set = HeaderMap::new();
        Cookies { is_secure: true }.set(&mut set, CookieKind::Session, "x");
        Cookies { is_secure: false }.clear(&mut set, CookieKind::Flow);
        let set: Vec<&str> = set.get_all(header::SET_COOKIE).iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(
            set,
            [
                "__Host-al_session=x; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax; Secure",
                "al_flow=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
            ]
        );
    }
}
