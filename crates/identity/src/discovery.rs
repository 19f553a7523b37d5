//! What an OpenID provider says about itself, and for how long it is believed.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use agentlens_outbound::Url;
use lru::LruCache;
use oauth2::AuthType;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::error::{Detail, SignInError};
use crate::http::Http;
use crate::id_token::ALGORITHM_NAMES;
use crate::provider::GoogleEndpoints;

/// How long a document is used.
const MAX_AGE: Duration = Duration::from_secs(3_600);
/// Documents that are kept.
const MAX_DOCUMENTS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// The part of a provider's description that a sign-in needs.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) issuer: String,
    pub(crate) authorization: String,
    pub(crate) token: String,
    pub(crate) jwks: Url,
    pub(crate) userinfo: Option<Url>,
    pub(crate) auth_type: AuthType,
    /// Whether every answer names the issuer (RFC 9207).
    pub(crate) names_issuer: bool,
}

impl Description {
    /// Google's, which is known beforehand.
    pub(crate) fn of_google(http: &Http, endpoints: &GoogleEndpoints) -> Result<Self, SignInError> {
        Ok(Self {
            issuer: endpoints.issuer.clone(),
            authorization: http.parse_url("Google's authorization address", &endpoints.authorization)?.into(),
            token: http.parse_url("Google's token address", &endpoints.token)?.into(),
            jwks: http.parse_url("Google's key address", &endpoints.jwks)?,
            userinfo: None,
            auth_type: AuthType::RequestBody,
            names_issuer: false,
        })
    }
}

/// The document as it is published.
#[derive(Debug, Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    id_token_signing_alg_values_supported: Option<Vec<String>>,
    authorization_response_iss_parameter_supported: Option<bool>,
}

impl Document {
    /// Checks the document. Every address in it is the provider's choice, and gets no more trust than the issuer's.
    fn accept(self, http: &Http, issuer: &str) -> Result<Description, SignInError> {
        if self.issuer != issuer {
            let text = format!("the discovery document of {issuer} names the issuer {}", self.issuer);
            return Err(SignInError::Misconfigured(Detail::with(&text)));
        }
        if let Some(algorithms) = &self.id_token_signing_alg_values_supported
            && !algorithms.iter().any(|name| ALGORITHM_NAMES.contains(&name.as_str()))
        {
            return Err(SignInError::Misconfigured(
                "the provider signs id tokens with none of RS256, ES256 and EdDSA".into(),
            ));
        }
        // Where nothing is said, the standard says Basic.
        let methods = self.token_endpoint_auth_methods_supported;
        let knows = |method: &str| methods.as_ref().is_none_or(|list| list.iter().any(|name| name == method));
        let auth_type = match (knows("client_secret_basic"), knows("client_secret_post")) {
            (true, _) => AuthType::BasicAuth,
            (false, true) => AuthType::RequestBody,
            (false, false) => {
                return Err(SignInError::Misconfigured("the provider takes no client secret".into()));
            }
        };
        let userinfo = self.userinfo_endpoint.as_deref();
        Ok(Description {
            authorization: http.parse_url("authorization_endpoint", &self.authorization_endpoint)?.into(),
            token: http.parse_url("token_endpoint", &self.token_endpoint)?.into(),
            jwks: http.parse_url("jwks_uri", &self.jwks_uri)?,
            userinfo: userinfo.map(|text| http.parse_url("userinfo_endpoint", text)).transpose()?,
            auth_type,
            names_issuer: self.authorization_response_iss_parameter_supported == Some(true),
            issuer: self.issuer,
        })
    }
}

/// The descriptions of the providers that were asked lately.
pub(crate) struct Descriptions {
    known: Mutex<LruCache<String, Known>>,
}

struct Known {
    description: Arc<Description>,
    fetched_us: i64,
}

impl Descriptions {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::new(LruCache::new(MAX_DOCUMENTS)) }
    }

    pub(crate) async fn get(
        &self,
        http: &Http,
        issuer: &str,
        now_us: i64,
    ) -> Result<Arc<Description>, SignInError> {
        if let Some(known) = self.known.lock().get(issuer)
            && is_younger(known.fetched_us, now_us, MAX_AGE)
        {
            return Ok(Arc::clone(&known.description));
        }
        let url = document_url(http, issuer)?;
        let document: Document = http.get_json("the discovery document", url).await?;
        let description = Arc::new(document.accept(http, issuer)?);
        let known = Known { description: Arc::clone(&description), fetched_us: now_us };
        self.known.lock().put(issuer.to_owned(), known);
        Ok(description)
    }
}

/// Where an issuer publishes its document.
fn document_url(http: &Http, issuer: &str) -> Result<Url, SignInError> {
    let url = http.parse_url("the issuer", issuer)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(SignInError::Misconfigured("the issuer must have neither query nor fragment".into()));
    }
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    http.parse_url("the issuer", &format!("{base}/.well-known/openid-configuration"))
}

/// Whether something is younger than an age. What comes from the future, because a clock was wrong, is old.
pub(crate) fn is_younger(since_us: i64, now_us: i64, age: Duration) -> bool {
    let passed = now_us.checked_sub(since_us).and_then(|us| u64::try_from(us).ok());
    passed.is_some_and(|us| Duration::from_micros(us) < age)
}
