//! What is kept between the beginning of a sign-in and its end.

use std::fmt;
use std::time::Duration;

use agentlens_outbound::Url;
use data_encoding::BASE64URL_NOPAD;
use oauth2::PkceCodeVerifier;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::SignInError;
use crate::provider::Provider;

/// Bytes of each of the three secrets.
const SECRET_BYTES: usize = 32;
/// Random bytes that the beginning of a sign-in takes.
pub const ENTROPY_BYTES: usize = 3 * SECRET_BYTES;
/// How long a person may take at the provider. Whoever keeps the secrets must drop them then, and after one use.
pub const FLOW_LIFETIME: Duration = Duration::from_secs(600);

/// The beginning of a sign-in.
#[derive(Debug)]
pub struct Started {
    /// Where the browser is to be sent.
    pub url: Url,
    /// What is to be kept on the server until it comes back.
    pub flow: FlowSecrets,
}

/// The secrets of one sign-in. They are kept on the server, for [`FLOW_LIFETIME`] and one use, tied to the browser by a
/// cookie: the state in the answer alone doesn't prove that it is the same browser.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSecrets {
    /// Comes back in the answer.
    pub state: String,
    /// Comes back in the id token.
    pub nonce: String,
    /// Proves to the provider that the code comes from who began.
    pub pkce_verifier: String,
    /// The provider that the flow was begun with.
    pub(crate) provider: String,
}

impl FlowSecrets {
    pub(crate) fn new(provider: &Provider, entropy: &[u8; ENTROPY_BYTES]) -> Self {
        let (state, rest) = entropy.split_at(SECRET_BYTES);
        let (nonce, verifier) = rest.split_at(SECRET_BYTES);
        Self {
            state: BASE64URL_NOPAD.encode(state),
            nonce: BASE64URL_NOPAD.encode(nonce),
            pkce_verifier: BASE64URL_NOPAD.encode(verifier),
            provider: provider.binding(),
        }
    }

    pub(crate) fn check_provider(&self, provider: &Provider) -> Result<(), SignInError> {
        if self.provider == provider.binding() {
            return Ok(());
        }
        Err(SignInError::WrongFlow("the flow was begun with another provider or other settings".into()))
    }

    /// Compares without telling by its time where the difference is.
    pub(crate) fn check_state(&self, state: &str) -> Result<(), SignInError> {
        if Sha256::digest(state) == Sha256::digest(&self.state) {
            return Ok(());
        }
        Err(SignInError::WrongFlow("the state is another one".into()))
    }

    pub(crate) fn verifier(&self) -> PkceCodeVerifier {
        PkceCodeVerifier::new(self.pkce_verifier.clone())
    }
}

impl fmt::Debug for FlowSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FlowSecrets").field("provider", &self.provider).finish_non_exhaustive()
    }
}
