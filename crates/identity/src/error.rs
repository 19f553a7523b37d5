//! Why a sign-in failed: a text for the person, a stable code, and a detail for the log.

use std::borrow::Cow;
use std::fmt;

use agentlens_outbound::OutboundError;

/// Characters of a detail.
const MAX_DETAIL_CHARS: usize = 300;

/// What the log may say beside the error. It is made of fixed sentences, addresses from settings, and statuses: never
/// of what a provider sent after it was given a code, so no token, code or secret can be in it. An admin who sets a
/// connection up may see it, too.
#[derive(Clone, PartialEq, Eq)]
pub struct Detail(Cow<'static, str>);

impl Detail {
    /// A detail with text from outside, which is cut and freed of control characters.
    pub(crate) fn with(text: &str) -> Self {
        let shown = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        Self(Cow::Owned(shown.take(MAX_DETAIL_CHARS).collect()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Detail {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

/// Why nobody was signed in. The texts may be shown to anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    /// The person said no, or the provider did so in their name.
    #[error("the sign-in was cancelled at the identity provider")]
    Cancelled,
    /// State, provider or settings are not those of the flow that was begun.
    #[error("this answer doesn't belong to the sign-in that was begun here; please begin again")]
    WrongFlow(Detail),
    /// The answer names another issuer, or none although the provider always names itself.
    #[error("the answer comes from another identity provider; please begin again")]
    WrongIssuer(Detail),
    /// No answer, or none in time.
    #[error("the identity provider can't be reached; please try again later")]
    Unreachable(Detail),
    /// The provider refused the request, the code, or our credentials.
    #[error("the identity provider refused the sign-in; please begin again")]
    Refused(Detail),
    /// The provider answered with something that can't be used.
    #[error("the identity provider's answer can't be used")]
    InvalidAnswer(Detail),
    /// The id token fails a check.
    #[error("the identity provider's answer can't be trusted")]
    InvalidToken(Detail),
    /// The settings of this way to sign in are wrong: an administrator's task.
    #[error("this way to sign in is not set up correctly; please tell your administrator")]
    Misconfigured(Detail),
}

impl SignInError {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cancelled => "sign_in_cancelled",
            Self::WrongFlow(_) => "sign_in_wrong_flow",
            Self::WrongIssuer(_) => "sign_in_wrong_issuer",
            Self::Unreachable(_) => "sign_in_provider_unreachable",
            Self::Refused(_) => "sign_in_provider_refused",
            Self::InvalidAnswer(_) => "sign_in_invalid_answer",
            Self::InvalidToken(_) => "sign_in_invalid_token",
            Self::Misconfigured(_) => "sign_in_misconfigured",
        }
    }

    /// What the log may say about it; not for whoever wanted to sign in.
    pub fn detail(&self) -> Option<&Detail> {
        match self {
            Self::Cancelled => None,
            Self::WrongFlow(detail)
            | Self::WrongIssuer(detail)
            | Self::Unreachable(detail)
            | Self::Refused(detail)
            | Self::InvalidAnswer(detail)
            | Self::InvalidToken(detail)
            | Self::Misconfigured(detail) => Some(detail),
        }
    }

    /// What a request came to that was not made or not answered.
    pub(crate) fn from_outbound(what: &str, error: &OutboundError) -> Self {
        let detail = Detail::with(&format!("{what}: {error}"));
        match error {
            OutboundError::UnknownHost(_) | OutboundError::TimedOut(_) | OutboundError::Failed(_) => {
                Self::Unreachable(detail)
            }
            OutboundError::HeadersTooLarge(_) | OutboundError::ResponseTooLarge(_) => {
                Self::InvalidAnswer(detail)
            }
            OutboundError::InvalidUrl(_)
            | OutboundError::NotHttps
            | OutboundError::Credentials
            | OutboundError::NotPublic(_)
            | OutboundError::ForbiddenHeader(_)
            | OutboundError::RequestTooLarge(_) => Self::Misconfigured(detail),
        }
    }
}

/// Errors that the standards and GitHub's documentation name. Other texts are the provider's own and aren't repeated.
const KNOWN_ERRORS: [&str; 21] = [
    "access_denied",
    "account_selection_required",
    "application_suspended",
    "bad_verification_code",
    "consent_required",
    "incorrect_client_credentials",
    "interaction_required",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "login_required",
    "redirect_uri_mismatch",
    "request_not_supported",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
    "unverified_user_email",
    "invalid_target",
];

/// A provider's error code, if it is one of the known ones.
pub(crate) fn known_error(code: &str) -> &'static str {
    KNOWN_ERRORS.iter().find(|known| **known == code).copied().unwrap_or("an error that no standard names")
}
