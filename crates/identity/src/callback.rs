//! What the browser brings back.

use std::fmt;

use serde::Deserialize;

use crate::error::{SignInError, known_error};
use crate::flow::FlowSecrets;
use crate::provider::Provider;

/// Bytes of a code.
const MAX_CODE_BYTES: usize = 8_192;

/// The parameters of the request to the redirect address. To be read from the query in such a way that a parameter
/// that comes twice is refused.
#[derive(Clone, Default, Deserialize)]
pub struct Callback {
    /// The code to exchange.
    pub code: Option<String>,
    /// The state that was sent along.
    pub state: Option<String>,
    /// Who answers (RFC 9207).
    pub iss: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
}

impl Callback {
    /// The code, if the answer belongs to the flow and comes from the provider.
    pub(crate) fn into_code(self, provider: &Provider, flow: &FlowSecrets) -> Result<String, SignInError> {
        let Some(state) = self.state.as_deref() else {
            return Err(SignInError::WrongFlow("the answer has no state".into()));
        };
        flow.check_state(state)?;
        // An error is believed no more than a code is.
        if self.iss.as_deref().is_some_and(|iss| iss != provider.issuer()) {
            return Err(SignInError::WrongIssuer("`iss` in the answer is another issuer".into()));
        }
        match (self.error.as_deref(), self.code) {
            (Some("access_denied"), _) => Err(SignInError::Cancelled),
            (Some(error), _) => Err(SignInError::Refused(known_error(error).into())),
            (None, Some(code)) if !code.is_empty() && code.len() <= MAX_CODE_BYTES => Ok(code),
            (None, _) => Err(SignInError::InvalidAnswer("the answer has no usable code".into())),
        }
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Callback")
    }
}
