//! How many of something an org may have. Plans decide it; until there are plans, everything is unlimited.

use std::collections::BTreeMap;
use std::str::FromStr;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CountLimit {
    /// Active API keys of an org.
    ApiKeys,
    /// Members and open invitations of an org.
    Members,
    /// Workspaces of an org that aren't archived.
    Workspaces,
    /// Orgs that a person owns.
    OwnedOrgs,
}

impl CountLimit {
    /// Every limit.
    pub const EVERY: [Self; 4] = [Self::ApiKeys, Self::Members, Self::Workspaces, Self::OwnedOrgs];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKeys => "api_keys",
            Self::Members => "members",
            Self::Workspaces => "workspaces",
            Self::OwnedOrgs => "owned_orgs",
        }
    }
}

/// The limits in force. One function answers, so that plans have one place to fill.
#[derive(Debug, Clone, Default)]
pub struct Entitlements(BTreeMap<CountLimit, i64>);

impl Entitlements {
    /// How many there may be; `None` for any number.
    pub fn limit(&self, limit: CountLimit) -> Option<i64> {
        self.0.get(&limit).copied()
    }
}

impl FromStr for Entitlements {
    type Err = String;

    /// Reads `members=3,api_keys=10`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut limits = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, count) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not NAME=COUNT"))?;
            let limit = CountLimit::EVERY.into_iter().find(|limit| limit.as_str() == name);
            let limit = limit.ok_or_else(|| format!("there is no limit {name:?}"))?;
            let count = count.parse().map_err(|_| format!("{count:?} is not a number"))?;
            limits.insert(limit, count);
        }
        Ok(Self(limits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_limited_unless_it_is_said() {
        assert!(CountLimit::EVERY.iter().all(|limit| Entitlements::default().limit(*limit).is_none()));
        let limits: Entitlements = "members=3,api_keys=10".parse().unwrap();
        assert_eq!(limits.limit(CountLimit::Members), Some(3));
        assert_eq!(limits.limit(CountLimit::ApiKeys), Some(10));
        assert_eq!(limits.limit(CountLimit::Workspaces), None);
        assert!("seats=3".parse::<Entitlements>().is_err() && "members".parse::<Entitlements>().is_err());
    }
}
