//! Who somebody is, according to a provider.

use serde::{Deserialize, Serialize};

use crate::error::SignInError;

/// Bytes of a subject (OpenID Connect allows 255).
const MAX_SUBJECT_BYTES: usize = 255;
/// Bytes of an address (RFC 5321).
const MAX_EMAIL_BYTES: usize = 254;
/// Characters of a name.
const MAX_NAME_CHARS: usize = 200;

/// What a provider says about a person. Only `(provider_key, subject)` names the person: addresses and names change
/// hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// [`Provider::key`](crate::Provider::key).
    pub provider_key: String,
    /// The person's id there.
    pub subject: String,
    /// The person's address, as the provider wrote it.
    pub email: Option<String>,
    /// Whether the provider says that the address is the person's. `None`: it doesn't say.
    pub email_verified: Option<bool>,
    /// A name to show.
    pub name: Option<String>,
    /// The values of the claim that roles are mapped from.
    pub role_values: Vec<String>,
}

impl Identity {
    pub(crate) fn new(provider_key: String, subject: &str) -> Result<Self, SignInError> {
        if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES || subject.chars().any(char::is_control) {
            return Err(SignInError::InvalidAnswer("the subject is empty or can't be kept".into()));
        }
        Ok(Self {
            provider_key,
            subject: subject.to_owned(),
            email: None,
            email_verified: None,
            name: None,
            role_values: Vec::new(),
        })
    }

    /// The address, if the provider says that it is the person's. The only one that may be believed of a provider for
    /// everybody.
    pub fn verified_email(&self) -> Option<&str> {
        self.email.as_deref().filter(|_| self.email_verified == Some(true))
    }

    /// The address, unless the provider says that it isn't the person's. Enough only for addresses in domains that
    /// the owner of the provider has proved to own, since some providers don't say anything (Microsoft Entra).
    pub fn unrefuted_email(&self) -> Option<&str> {
        self.email.as_deref().filter(|_| self.email_verified != Some(false))
    }

    /// Sets address and what is said about it, which belong together.
    pub(crate) fn set_email(&mut self, email: &str, is_verified: Option<bool>) {
        let is_plain = !email.chars().any(|letter| letter.is_control() || letter.is_whitespace());
        if is_plain && email.contains('@') && email.len() <= MAX_EMAIL_BYTES {
            self.email = Some(email.to_owned());
            self.email_verified = is_verified;
        }
    }

    pub(crate) fn set_name(&mut self, name: &str) {
        let shown: String = name
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .take(MAX_NAME_CHARS)
            .collect();
        let shown = shown.trim();
        self.name = (!shown.is_empty()).then(|| shown.to_owned());
    }
}
