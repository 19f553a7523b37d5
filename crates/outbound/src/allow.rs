//! What an operator allows beside the public internet.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// One entry: a host, the hosts under a domain, or a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// `hooks.internal`: this host, whatever it resolves to but link-local and multicast addresses.
    Host(String),
    /// `*.internal`: every host under the domain, but not the domain itself.
    Under(String),
    /// `10.1.0.0/16` or `10.1.2.3`: every address in it.
    Network(IpNet),
}

/// An entry that is neither a host nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` must be a host such as hooks.internal, hosts such as *.internal, or a network such as 10.1.0.0/16"
)]
pub struct InvalidAllow(String);

impl FromStr for Allow {
    type Err = InvalidAllow;

    fn from_str(text: &str) -> Result<Self, InvalidAllow> {
        let text = text.trim();
        let invalid = || InvalidAllow(text.to_owned());
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Self::Network(IpNet::from(address.to_canonical())));
        }
        let (name, is_suffix) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        // An address in another form (127.1) is read as a number by browsers, and would never be compared as a name.
        let is_number = name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.starts_with(|first: char| first.is_ascii_digit()));
        let is_name = !name.is_empty()
            && name.split('.').all(|label| {
                !label.is_empty()
                    && label
                        .chars()
                        .all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_')
            });
        if !is_name || is_number {
            return Err(invalid());
        }
        let name = name.to_ascii_lowercase();
        Ok(if is_suffix { Self::Under(name) } else { Self::Host(name) })
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => formatter.write_str(name),
            Self::Under(domain) => write!(formatter, "*.{domain}"),
            Self::Network(network) => network.fmt(formatter),
        }
    }
}

/// All entries. Empty, it allows the public internet over HTTPS and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Allow>);

impl AllowList {
    /// A list of these entries.
    pub fn new(entries: Vec<Allow>) -> Self {
        Self(entries)
    }

    /// Whether a name is listed.
    pub(crate) fn has_host(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.0.iter().any(|entry| match entry {
            Allow::Host(host) => host.eq_ignore_ascii_case(name),
            Allow::Under(domain) => {
                let Some(start) = name.len().checked_sub(domain.len()).filter(|start| *start > 1) else {
                    return false;
                };
                name.is_char_boundary(start)
                    && name[start..].eq_ignore_ascii_case(domain)
                    && name.as_bytes()[start - 1] == b'.'
            }
            Allow::Network(_) => false,
        })
    }

    /// Whether an address is in a listed network.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|entry| matches!(entry, Allow::Network(network) if network.contains(&address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        AllowList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect())
    }

    #[test]
    fn hosts_are_compared_whole() {
        let allowed = list(&["Hooks.Internal", "*.corp.example"]);
        for name in ["hooks.internal", "HOOKS.internal.", "a.corp.example", "a.b.corp.example."] {
            assert!(allowed.has_host(name), "{name}");
        }
        for name in [
            "internal",
            "xhooks.internal",
            "a.hooks.internal",
            "corp.example",
            ".corp.example",
            "evilcorp.example",
            "",
        ] {
            assert!(!allowed.has_host(name), "{name}");
        }
    }

    #[test]
    fn networks_hold_addresses_in_every_form() {
        let allowed = list(&["10.1.0.0/16", "192.168.7.9", "fd00:1::/32", "[::1]"]);
        for address in ["10.1.255.1", "::ffff:10.1.0.7", "192.168.7.9", "fd00:1:2::3", "::1"] {
            assert!(allowed.has_address(address.parse().unwrap()), "{address}");
        }
        for address in ["10.2.0.1", "192.168.7.8", "fd00:2::1", "::2", "127.0.0.1"] {
            assert!(!allowed.has_address(address.parse().unwrap()), "{address}");
        }
        assert!(!allowed.has_host("10.1.0.1"));
    }

    #[test]
    fn entries_are_read_and_printed() {
        for text in ["hooks.internal", "*.corp.example", "10.1.0.0/16", "fd00::/8", "192.168.7.9/32"] {
            assert_eq!(text.parse::<Allow>().unwrap().to_string(), text);
        }
        assert_eq!("10.1.2.3/16".parse::<Allow>().unwrap().to_string(), "10.1.0.0/16");
        for text in [
            "",
            "*",
            "*.",
            "*.*.example",
            "a b",
            "http://a",
            "a/b",
            "a:80",
            "10.0.0.0/33",
            "127.1",
            "0x7f.1",
            "2130706433",
            "a..b",
            ".a",
            "ä.example",
        ] {
            assert!(text.parse::<Allow>().is_err(), "{text}");
        }
    }
}
