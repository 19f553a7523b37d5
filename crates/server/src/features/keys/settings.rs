//! What a request says of a key that is to be made.

use ipnet::IpNet;
use serde::Deserialize;
use utoipa::ToSchema;

use agentlens_domain::environments;
use agentlens_domain::ids::WorkspaceId;
use agentlens_domain::keys::{KeyOptions, KeyScope};
use agentlens_domain::time::{DAY_US, parse_rfc3339};

use super::read_name;
use crate::error::ApiError;

/// The longest life that can be given to a key.
const MAX_EXPIRY_US: i64 = 3650 * DAY_US;
/// The highest rate that a key can have of its own.
const MAX_RATE_PER_MINUTE: u32 = 1_000_000;
/// Networks of one key.
const MAX_NETWORKS: usize = 50;

/// An API key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeySettings {
    /// Its name: 1 to 100 characters on one line.
    name: String,
    /// What it may do, such as `events:write`; nothing unless given.
    #[serde(default)]
    scopes: Vec<String>,
    /// The workspace that it writes to and reads from: the one of the request unless given.
    workspace_id: Option<String>,
    /// The environment of events that name none: production unless given.
    environment: Option<String>,
    /// Whether events that name another environment are refused.
    #[serde(default)]
    is_environment_bound: bool,
    /// When it stops working, as RFC 3339: within ten years; never unless given.
    expires_at: Option<String>,
    /// How many requests a minute it may make, up to 1,000,000; any number unless given. Each node counts by itself.
    rate_per_minute: Option<u32>,
    /// The networks that it may be used from, such as `192.0.2.0/24` or `2001:db8::7`: 50 at most; all unless given.
    #[serde(default)]
    allowed_networks: Vec<String>,
}

impl KeySettings {
    /// Reads them; `workspace` is that of the request.
    pub(super) fn read(self, workspace: &WorkspaceId, now_us: i64) -> Result<KeyOptions, ApiError> {
        let workspace = match &self.workspace_id {
            Some(id) => WorkspaceId::parse(id)
                .map_err(|error| ApiError::invalid_field("workspace_id", error.to_string()))?,
            None => workspace.clone(),
        };
        let environment = environments::parse(self.environment.as_deref().unwrap_or("production"))
            .map_err(|error| ApiError::invalid_field("environment", error.to_string()))?
            .ok_or_else(|| ApiError::invalid_field("environment", "must not be empty"))?;
        let rate_is_right = |rate: u32| (1..=MAX_RATE_PER_MINUTE).contains(&rate);
        if !self.rate_per_minute.is_none_or(rate_is_right) {
            let message = format!("must be from 1 to {MAX_RATE_PER_MINUTE}");
            return Err(ApiError::invalid_field("rate_per_minute", message));
        }
        Ok(KeyOptions {
            name: read_name(&self.name)?,
            scopes: read_scopes(&self.scopes)?,
            workspace: workspace.to_string(),
            environment: environment.to_owned(),
            is_environment_bound: self.is_environment_bound,
            expires_us: self.expires_at.as_deref().map(|text| read_expiry(text, now_us)).transpose()?,
            rate_per_minute: self.rate_per_minute,
            allowed_networks: read_networks(&self.allowed_networks)?,
        })
    }
}

fn read_scopes(names: &[String]) -> Result<Vec<KeyScope>, ApiError> {
    let mut scopes = Vec::new();
    for name in names {
        let scope = KeyScope::parse(name).ok_or_else(|| {
            let known: Vec<&str> = KeyScope::EVERY.iter().map(|scope| scope.as_str()).collect();
            ApiError::invalid_field("scopes", format!("each must be one of {}", known.join(", ")))
        })?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(scopes)
}

fn read_expiry(text: &str, now_us: i64) -> Result<i64, ApiError> {
    let is_right = |at: &i64| *at > now_us && at - now_us <= MAX_EXPIRY_US;
    parse_rfc3339(text).filter(is_right).ok_or_else(|| {
        ApiError::invalid_field(
            "expires_at",
            "must be an RFC 3339 instant in the future, such as 2030-01-31T12:00:00Z, at most ten years away",
        )
    })
}

fn read_networks(texts: &[String]) -> Result<Vec<String>, ApiError> {
    if texts.len() > MAX_NETWORKS {
        return Err(ApiError::invalid_field("allowed_networks", format!("must be {MAX_NETWORKS} at most")));
    }
    let read = |text: &String| {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        network.map(|network| network.trunc().to_string()).map_err(|_| {
            let message = "each must be an address or a network, such as 192.0.2.0/24 or 2001:db8::/32";
            ApiError::invalid_field("allowed_networks", message)
        })
    };
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_in_one_form() {
        let read = |text: &str| read_networks(&[text.to_owned()]).map(|mut all| all.remove(0)).ok();
        assert_eq!(read("192.0.2.7/24").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(read("192.0.2.7").as_deref(), Some("192.0.2.7/32"));
        assert_eq!(read("2001:DB8::7/32").as_deref(), Some("2001:db8::/32"));
        for bad in ["", "192.0.2.0/33", "example.com", "192.0.2", " 192.0.2.1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert!(read_networks(&vec!["192.0.2.7".to_owned(); MAX_NETWORKS + 1]).is_err());
    }
}
