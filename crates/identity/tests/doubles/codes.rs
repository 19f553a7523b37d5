//! Codes: given out for what was asked, taken back once, from who began (RFC 6749 section 4.1.3, RFC 7636 section 4.6).

use std::collections::HashMap;
use std::sync::Mutex;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

use super::{Parameters, random};

/// What the authorization request said.
#[derive(Debug, Clone)]
pub struct Asked {
    pub redirect_uri: String,
    pub challenge: String,
    pub nonce: Option<String>,
    pub scope: String,
}

/// The client that a double knows.
#[derive(Debug, Clone)]
pub struct Registration {
    pub client_id: String,
    pub client_secret: String,
    pub redirect_uri: String,
}

impl Registration {
    pub fn new(redirect_uri: &str) -> Self {
        Self {
            client_id: random("client"),
            client_secret: random("secret"),
            redirect_uri: redirect_uri.to_owned(),
        }
    }

    /// Checks what every authorization request must hold.
    pub fn check(&self, parameters: &Parameters, scopes: &[&str]) -> Result<Asked, String> {
        let get = |name: &str| parameters.get(name).ok_or_else(|| format!("{name} is missing"));
        if get("client_id")? != &self.client_id {
            return Err("unknown client".to_owned());
        }
        if get("redirect_uri")? != &self.redirect_uri {
            return Err("redirect_uri is not registered".to_owned());
        }
        if get("response_type")? != "code" {
            return Err("response_type must be code".to_owned());
        }
        if get("state")?.len() < 43 {
            return Err("state can be guessed".to_owned());
        }
        let challenge = get("code_challenge")?;
        if get("code_challenge_method")? != "S256" || challenge.len() != 43 {
            return Err("PKCE with S256 is demanded".to_owned());
        }
        let scope = get("scope")?;
        let mut asked: Vec<_> = scope.split(' ').collect();
        let mut expected = scopes.to_vec();
        asked.sort_unstable();
        expected.sort_unstable();
        if asked != expected {
            return Err(format!("scope is {scope}"));
        }
        if parameters.contains_key("client_secret") || parameters.contains_key("code_verifier") {
            return Err("a secret in the browser".to_owned());
        }
        Ok(Asked {
            redirect_uri: get("redirect_uri")?.clone(),
            challenge: challenge.clone(),
            nonce: parameters.get("nonce").cloned(),
            scope: scope.clone(),
        })
    }
}

/// Why a code isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    Code,
    RedirectUri,
    Verifier,
}

#[derive(Default)]
pub struct Codes {
    open: Mutex<HashMap<String, Asked>>,
}

impl Codes {
    pub fn issue(&self, asked: Asked) -> String {
        let code = random("code");
        self.open.lock().unwrap().insert(code.clone(), asked);
        code
    }

    /// A code is gone after the first try, right or wrong.
    pub fn redeem(&self, form: &Parameters) -> Result<Asked, Wrong> {
        let asked =
            form.get("code").and_then(|code| self.open.lock().unwrap().remove(code)).ok_or(Wrong::Code)?;
        if form.get("redirect_uri") != Some(&asked.redirect_uri) {
            return Err(Wrong::RedirectUri);
        }
        let verifier = form.get("code_verifier").ok_or(Wrong::Verifier)?;
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(verifier));
        if verifier.len() < 43 || challenge != asked.challenge { Err(Wrong::Verifier) } else { Ok(asked) }
    }
}
