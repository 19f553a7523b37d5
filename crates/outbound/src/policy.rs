//! Which addresses and hosts may be asked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::Url;

use crate::address::is_public;
use crate::allow::AllowList;

/// Why a request was not made, or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The address is none.
    #[error("the address can't be read: {0}")]
    InvalidUrl(String),
    /// The address is not `https`, and its host is not allowed to go without.
    #[error("the address must begin with https://")]
    NotHttps,
    /// The address names a person and a password.
    #[error("the address must not hold a user name or a password")]
    Credentials,
    /// The host is not on the public internet, and is not allowed.
    #[error("{0} is not on the public internet; an operator can allow it with AGENTLENS_OUTBOUND_ALLOW")]
    NotPublic(String),
    /// The name has no address.
    #[error("{0} has no address")]
    UnknownHost(String),
    /// A header that only the client itself may set.
    #[error("the header {0} can't be set")]
    ForbiddenHeader(String),
    /// What should be sent is too large.
    #[error("the request is larger than {0} bytes")]
    RequestTooLarge(usize),
    /// The answer's headers are too large.
    #[error("the headers of the answer are larger than {0} bytes")]
    HeadersTooLarge(usize),
    /// The answer is too large.
    #[error("the answer is larger than {0} bytes")]
    ResponseTooLarge(usize),
    /// It took too long.
    #[error("no whole answer came within {} seconds", .0.as_secs())]
    TimedOut(Duration),
    /// No connection, no encryption, or an answer that is no HTTP.
    #[error("the request failed: {0}")]
    Failed(String),
}

/// The rules of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) allowed: AllowList,
}

/// What an address names.
enum Host<'u> {
    Name(&'u str),
    Address(IpAddr),
}

impl Policy {
    /// Whether a request to the address may begin; a name is looked at again once it is resolved.
    pub(crate) fn check_url(&self, url: &Url) -> Result<(), OutboundError> {
        let host = host_of(url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OutboundError::Credentials);
        }
        let is_allowed = match &host {
            Host::Name(name) => self.allowed.has_host(name),
            Host::Address(address) => self.allowed.has_address(*address),
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && is_allowed) {
            return Err(OutboundError::NotHttps);
        }
        match host {
            Host::Address(address) if !is_allowed && !is_public(address) => {
                Err(OutboundError::NotPublic(address.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Of what a name was resolved to, the addresses that may be connected to.
    pub(crate) fn permitted(
        &self,
        name: &str,
        resolved: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, OutboundError> {
        let is_listed = self.allowed.has_host(name);
        let (permitted, refused): (Vec<_>, Vec<_>) =
            resolved.partition(|address| self.may_connect(is_listed, address.ip()));
        match (permitted.is_empty(), refused.is_empty()) {
            (false, _) => Ok(permitted),
            (true, false) => Err(OutboundError::NotPublic(name.to_owned())),
            (true, true) => Err(OutboundError::UnknownHost(name.to_owned())),
        }
    }

    fn may_connect(&self, is_listed: bool, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address)
            || self.allowed.has_address(address)
            || is_listed && !is_never_meant_by_a_name(address)
    }
}

/// A name that resolves to one of these is a mistake or an attack, even if it is listed: metadata services are link-local.
fn is_never_meant_by_a_name(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => {
            address.is_link_local() || address.is_broadcast() || address.octets() == [168, 63, 129, 16]
        }
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    is_local || address.is_multicast() || address.is_unspecified()
}

/// The host of an address. Forms such as `0x7f.1`, `017700000001` and `2130706433` have been read as addresses by then.
fn host_of(url: &Url) -> Result<Host<'_>, OutboundError> {
    let Some(text) = url.host_str().filter(|text| !text.is_empty()) else {
        return Err(OutboundError::InvalidUrl("it has no host".to_owned()));
    };
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    Ok(match bare.parse::<IpAddr>() {
        Ok(address) => Host::Address(address.to_canonical()),
        Err(_) => Host::Name(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> Policy {
        Policy { allowed: AllowList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect()) }
    }

    fn check(policy: &Policy, url: &str) -> Result<(), OutboundError> {
        policy.check_url(&url.parse().unwrap())
    }

    #[test]
    fn addresses_in_every_disguise_are_seen_through() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "0x7f.0.0.1",
            "0x7f000001",
            "0177.0.0.1",
            "017700000001",
            "2130706433",
            "0",
            "0x0",
            "127.0.0.1.",
            "１２７.0.0.1",
            "127。0。0。1",
            "%31%32%37.0.0.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "0251.0376.0251.0376",
            "10.0.0.1",
            "012.1",
            "192.168.1.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:7f00:0001]",
            "[64:ff9b::7f00:1]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "[2002:7f00:1::]",
            "168.63.129.16",
        ] {
            let url = format!("https://{host}/");
            let result = check(&policy(&[]), &url);
            assert!(matches!(result, Err(OutboundError::NotPublic(_))), "{url}: {result:?}");
        }
        for host in ["8.8.8.8", "[2606:4700::1111]", "example.com", "134744072", "0x08080808"] {
            assert_eq!(check(&policy(&[]), &format!("https://{host}/")), Ok(()), "{host}");
        }
    }

    #[test]
    fn only_https_unless_the_host_is_allowed() {
        let strict = policy(&[]);
        for url in [
            "http://example.com/",
            "http://8.8.8.8/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://x/",
            "data:,x",
        ] {
            assert!(check(&strict, url).is_err(), "{url}");
        }
        assert_eq!(check(&strict, "http://example.com/"), Err(OutboundError::NotHttps));
        let allowing = policy(&["hooks.internal", "127.0.0.0/8"]);
        for url in
            ["http://hooks.internal:8080/x", "http://127.0.0.1:9/", "https://127.1/", "http://2130706433/"]
        {
            assert_eq!(check(&allowing, url), Ok(()), "{url}");
        }
        assert_eq!(check(&allowing, "ftp://hooks.internal/"), Err(OutboundError::NotHttps));
        assert_eq!(check(&allowing, "http://[::1]/"), Err(OutboundError::NotHttps));
        for url in ["https://user@example.com/", "https://:secret@example.com/"] {
            assert_eq!(check(&strict, url), Err(OutboundError::Credentials));
        }
    }

    #[test]
    fn a_name_is_judged_by_what_it_resolves_to() {
        let resolve = |policy: &Policy, name: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0));
            let permitted = policy.permitted(name, addresses.collect::<Vec<_>>().into_iter());
            permitted.map(|list| list.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>())
        };
        let strict = policy(&[]);
        assert_eq!(resolve(&strict, "a.example", &["8.8.8.8"]).unwrap(), ["8.8.8.8"]);
        // Of a mixture only the public ones are connected to.
        let mixed = ["10.0.0.1", "8.8.8.8", "::1", "::ffff:127.0.0.1"];
        assert_eq!(resolve(&strict, "a.example", &mixed).unwrap(), ["8.8.8.8"]);
        let private = Err(OutboundError::NotPublic("a.example".to_owned()));
        assert_eq!(resolve(&strict, "a.example", &["10.0.0.1", "169.254.169.254"]), private);
        assert_eq!(
            resolve(&strict, "a.example", &[]),
            Err(OutboundError::UnknownHost("a.example".to_owned()))
        );
        let allowing = policy(&["a.example", "10.1.0.0/16"]);
        assert_eq!(resolve(&allowing, "a.example", &["10.9.0.1", "::1"]).unwrap(), ["10.9.0.1", "::1"]);
        // Not even a listed name leads to metadata; a listed network does.
        assert_eq!(
            resolve(&allowing, "a.example", &["169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0"]),
            private
        );
        assert_eq!(
            resolve(&policy(&["169.254.169.254"]), "b.example", &["169.254.169.254"]).unwrap(),
            ["169.254.169.254"]
        );
        assert_eq!(resolve(&allowing, "b.example", &["10.1.7.7", "10.2.7.7"]).unwrap(), ["10.1.7.7"]);
    }
}
