//! Signing in through somebody else: Google, GitHub, or the OpenID provider of an org.
//!
//! [`SignIn::begin`] says where to send the browser and what to keep until it comes back; [`SignIn::finish`] turns
//! what it brought back into an [`Identity`], or says why not. In between, everything is checked that the standards
//! let a client check: state, nonce, PKCE, issuer, audience, times, signature. Who the identity is here, and whether
//! its address may be believed, is decided by the caller. Nothing is stored; every request goes through the guarded
//! client of `outbound`.
//!
//! SAML would be another variant of [`Provider`]: it has a beginning, an answer, and an identity, too.

mod callback;
mod claims;
mod discovery;
mod error;
mod exchange;
mod flow;
mod github;
mod http;
mod id_token;
mod identity;
mod keys;
mod provider;
mod sign_in;

pub use callback::Callback;
pub use error::{Detail, SignInError};
pub use flow::{ENTROPY_BYTES, FLOW_LIFETIME, FlowSecrets, Started};
pub use identity::Identity;
pub use provider::{ClientCredentials, GithubEndpoints, GoogleEndpoints, OidcConnection, Provider, Secret};
pub use sign_in::SignIn;
