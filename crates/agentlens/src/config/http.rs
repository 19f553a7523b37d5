//! Where the server listens.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;

/// Where the server listens.
#[derive(Debug, Clone, Args)]
pub(crate) struct HttpOptions {
    /// Address to listen on, such as 127.0.0.1:3400 or localhost:3400; 0.0.0.0:3400 is every address of the machine.
    #[arg(long, env = "AGENTLENS_LISTEN", default_value = "127.0.0.1:3400")]
    pub(crate) listen: ListenAddress,
    /// A further address that serves the same, such as 127.0.0.1:4317 where OpenTelemetry exporters look by default. OTLP
    /// over HTTP and gRPC is served on the address above in any case.
    #[arg(long, env = "AGENTLENS_OTLP_LISTEN")]
    pub(crate) otlp_listen: Option<ListenAddress>,
    /// Maximum number of open connections. One client network (an IPv4 address, or an IPv6 /64) may hold at most three
    /// quarters of them. The limit of open files may allow fewer.
    #[arg(long, env = "AGENTLENS_MAX_CONNECTIONS", default_value_t = 8192)]
    pub(crate) max_connections: u64,
    /// Networks of the proxies in front of the server, separated by commas: 10.0.0.0/8, 192.0.2.7/32. Of a request from one of
    /// them, the client's address is read from X-Forwarded-For; without this, all clients behind a proxy count as one network.
    #[arg(long, env = "AGENTLENS_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Seconds to let running requests and batches finish at shutdown, all together. A second signal stops the server at once.
    #[arg(long, env = "AGENTLENS_SHUTDOWN_SECONDS", default_value_t = 25)]
    pub(crate) shutdown_seconds: u64,
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("{text:?} is neither a network such as 10.0.0.0/8 nor an address"))
}

/// A host and a port to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// The addresses that the host's name has on this machine.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<SocketAddr> =
            found.map_err(|error| format!("can't listen on {self}: {error}"))?.collect();
        if addresses.is_empty() {
            return Err(format!("can't listen on {self}: the name has no address"));
        }
        Ok(addresses)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "it must be an address and a port, such as 127.0.0.1:3400 (this machine only) or 0.0.0.0:3400 (every address)";
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(match text.parse::<u16>() {
                Ok(port) => format!("{wanted}; for port {port} of this machine write 127.0.0.1:{port}"),
                Err(_) => wanted.to_owned(),
            });
        };
        let port =
            port.parse::<u16>().map_err(|_| format!("{wanted}; `{port}` is not a port from 0 to 65535"))?;
        let is_name = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
        if host.is_empty() || !host.chars().all(is_name) {
            return Err(wanted.to_owned());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("127.0.0.1:3400", "127.0.0.1:3400"),
            ("localhost:0", "localhost:0"),
            ("[::1]:3400", "[::1]:3400"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("agentlens.internal:3400", "agentlens.internal:3400"),
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn refusals_show_an_example() {
        for text in ["3400", "0.0.0.0", "localhost", ":3400", "a b:1", "h:port", "h:65536", "::1:3400x", ""] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.contains("such as 127.0.0.1:3400"), "{text}: {error}");
        }
        assert!("8080".parse::<ListenAddress>().unwrap_err().contains("write 127.0.0.1:8080"));
    }
}
