//! The claims of a person, read in the same way wherever a provider puts them: in the id token or at its userinfo
//! address.

use openidconnect::core::CoreGenderClaim;
use openidconnect::{AdditionalClaims, EndUserEmail, EndUserName, LocalizedClaim};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::identity::Identity;

/// Values of the role claim that are read.
const MAX_ROLE_VALUES: usize = 500;
/// Bytes of such a value.
const MAX_ROLE_VALUE_BYTES: usize = 256;

/// Claims beside the standard ones.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct OtherClaims(pub(crate) Map<String, Value>);

impl AdditionalClaims for OtherClaims {}

pub(crate) type IdTokenClaims = openidconnect::IdTokenClaims<OtherClaims, CoreGenderClaim>;
pub(crate) type UserInfoClaims = openidconnect::UserInfoClaims<OtherClaims, CoreGenderClaim>;

/// What is read of a person's claims.
pub(crate) struct Claims<'c> {
    pub(crate) email: Option<&'c EndUserEmail>,
    pub(crate) email_verified: Option<bool>,
    pub(crate) name: Option<&'c LocalizedClaim<EndUserName>>,
    pub(crate) others: &'c OtherClaims,
}

impl<'c> From<&'c IdTokenClaims> for Claims<'c> {
    fn from(claims: &'c IdTokenClaims) -> Self {
        Self {
            email: claims.email(),
            email_verified: claims.email_verified(),
            name: claims.name(),
            others: claims.additional_claims(),
        }
    }
}

impl<'c> From<&'c UserInfoClaims> for Claims<'c> {
    fn from(claims: &'c UserInfoClaims) -> Self {
        Self {
            email: claims.email(),
            email_verified: claims.email_verified(),
            name: claims.name(),
            others: claims.additional_claims(),
        }
    }
}

impl Claims<'_> {
    /// Adds to an identity what it doesn't have yet.
    pub(crate) fn add_to(&self, identity: &mut Identity, role_claim: Option<&str>) {
        match (self.email, identity.email.as_deref()) {
            (Some(email), None) => identity.set_email(email, self.email_verified),
            // The other place may say what the first one left open, but of the same address only; and a no stays a no.
            (Some(email), Some(known)) if email.as_str() == known => {
                identity.email_verified = match (identity.email_verified, self.email_verified) {
                    (Some(first), Some(second)) => Some(first && second),
                    (first, second) => first.or(second),
                };
            }
            _ => {}
        }
        if identity.name.is_none()
            && let Some(names) = self.name
            && let Some(name) = names.get(None).or_else(|| names.iter().next().map(|(_, name)| name))
        {
            identity.set_name(name);
        }
        if identity.role_values.is_empty()
            && let Some(value) = role_claim.and_then(|path| find(&self.others.0, path))
        {
            identity.role_values = role_values(value);
        }
    }
}

/// A claim by its name, or by a path of names.
fn find<'v>(claims: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut names = path.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.as_object()?.get(name))
}

/// The texts of a claim: one, or a list. Anything else is no value.
fn role_values(value: &Value) -> Vec<String> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        single => std::slice::from_ref(single),
    };
    let texts = values.iter().filter_map(Value::as_str).filter(|text| text.len() <= MAX_ROLE_VALUE_BYTES);
    texts.take(MAX_ROLE_VALUES).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(claims: &Value, path: &str) -> Vec<String> {
        find(claims.as_object().unwrap(), path).map(role_values).unwrap_or_default()
    }

    #[test]
    fn a_role_claim_is_a_name_or_a_path() {
        let claims = json!({
            "groups": ["a", "b", 7, null, ["c"]],
            "role": "admin",
            "https://example.com/roles": ["url"],
            "realm_access": {"roles": ["nested"]},
            "large": ["x".repeat(257)],
        });
        assert_eq!(values(&claims, "groups"), ["a", "b"]);
        assert_eq!(values(&claims, "role"), ["admin"]);
        assert_eq!(values(&claims, "https://example.com/roles"), ["url"]);
        assert_eq!(values(&claims, "realm_access.roles"), ["nested"]);
        for path in ["", ".", "missing", "role.x", "realm_access", "realm_access.roles.x", "large"] {
            assert!(values(&claims, path).is_empty(), "{path}");
        }
    }

    fn identity_of(first: &Value, second: &Value) -> Identity {
        let mut identity = Identity::new("oidc:c".to_owned(), "s").unwrap();
        for value in [first, second] {
            let mut value = value.clone();
            value["sub"] = json!("s");
            let claims =
                UserInfoClaims::from_json::<std::convert::Infallible>(value.to_string().as_bytes(), None);
            Claims::from(&claims.unwrap()).add_to(&mut identity, None);
        }
        identity
    }

    #[test]
    fn an_address_is_verified_only_by_who_names_it() {
        let said = |first: Value, second: Value| {
            let identity = identity_of(&first, &second);
            (identity.email.unwrap_or_default(), identity.email_verified)
        };
        let a = || "a@example.com".to_owned();
        assert_eq!(
            said(json!({"email": a()}), json!({"email": a(), "email_verified": true})),
            (a(), Some(true))
        );
        assert_eq!(
            said(json!({"email": a()}), json!({"email": "b@x.y", "email_verified": true})),
            (a(), None)
        );
        assert_eq!(said(json!({"email": a()}), json!({"email_verified": true})), (a(), None));
        assert_eq!(said(json!({"email_verified": true}), json!({"email": a()})), (a(), None));
        let (yes, no) = (
            || json!({"email": a(), "email_verified": true}),
            || json!({"email": a(), "email_verified": "false"}),
        );
        assert_eq!(said(yes(), no()), (a(), Some(false)));
        assert_eq!(said(no(), yes()), (a(), Some(false)));
    }
}
