//! The two steps that every provider shares: the address for the browser, and the exchange of the code.

use agentlens_outbound::{OutboundError, Url};
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    ExtraTokenFields, PkceCodeChallenge, RedirectUrl, RequestTokenError, Scope, StandardRevocableToken,
    StandardTokenResponse, TokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize};

use crate::error::{Detail, SignInError, known_error};
use crate::flow::FlowSecrets;
use crate::http::Http;
use crate::provider::ClientCredentials;

/// What OpenID Connect adds to the answer of the token endpoint.
#[derive(Debug, Serialize, Deserialize)]
struct IdTokenField {
    #[serde(default)]
    id_token: Option<String>,
}

impl ExtraTokenFields for IdTokenField {}

type OauthClient = oauth2::Client<
    BasicErrorResponse,
    StandardTokenResponse<IdTokenField, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// Where a provider exchanges codes, and how it wants to be told who asks.
pub(crate) struct Exchange {
    client: OauthClient,
}

/// What a code was exchanged for.
pub(crate) struct Tokens {
    pub(crate) access_token: String,
    pub(crate) id_token: Option<String>,
}

impl Exchange {
    pub(crate) fn new(
        credentials: &ClientCredentials,
        authorization: &str,
        token: &str,
        auth_type: AuthType,
        redirect_uri: &str,
    ) -> Result<Self, SignInError> {
        let invalid =
            |_| SignInError::Misconfigured("an address of the provider or of this server is none".into());
        let client = oauth2::Client::new(ClientId::new(credentials.id.clone()))
            .set_client_secret(ClientSecret::new(credentials.secret.reveal().to_owned()))
            .set_auth_type(auth_type)
            .set_auth_uri(AuthUrl::new(authorization.to_owned()).map_err(invalid)?)
            .set_token_uri(TokenUrl::new(token.to_owned()).map_err(invalid)?)
            .set_redirect_uri(RedirectUrl::new(redirect_uri.to_owned()).map_err(invalid)?);
        Ok(Self { client })
    }

    /// Where the browser is sent.
    pub(crate) fn authorization_url<'s>(
        &self,
        flow: &FlowSecrets,
        scopes: impl IntoIterator<Item = &'s str>,
        extra: &[(&'static str, &str)],
    ) -> Url {
        let mut request = self
            .client
            .authorize_url(|| CsrfToken::new(flow.state.clone()))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&flow.verifier()))
            .add_scopes(scopes.into_iter().map(|scope| Scope::new(scope.to_owned())));
        for (name, value) in extra {
            request = request.add_extra_param(*name, (*value).to_owned());
        }
        request.url().0
    }

    /// Exchanges a code.
    pub(crate) async fn redeem(
        &self,
        http: &Http,
        code: String,
        flow: &FlowSecrets,
    ) -> Result<Tokens, SignInError> {
        let answer = self
            .client
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(flow.verifier())
            .request_async(http)
            .await
            .map_err(|error| reason(&error))?;
        if *answer.token_type() != BasicTokenType::Bearer {
            return Err(SignInError::InvalidAnswer("the token endpoint gave a token of another type".into()));
        }
        Ok(Tokens {
            access_token: answer.access_token().secret().clone(),
            id_token: answer.extra_fields().id_token.clone(),
        })
    }
}

/// Why a code was not exchanged. What the provider sent is left out, since it may repeat what it was sent.
fn reason(error: &RequestTokenError<OutboundError, BasicErrorResponse>) -> SignInError {
    match error {
        RequestTokenError::ServerResponse(answer) => {
            let code = known_error(answer.error().as_ref());
            let detail = Detail::with(&format!("the token endpoint answered: {code}"));
            match code {
                "invalid_client"
                | "incorrect_client_credentials"
                | "redirect_uri_mismatch"
                | "unauthorized_client" => SignInError::Misconfigured(detail),
                _ => SignInError::Refused(detail),
            }
        }
        RequestTokenError::Request(error) => SignInError::from_outbound("the token endpoint", error),
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            SignInError::InvalidAnswer("the token endpoint: not the JSON that was expected".into())
        }
    }
}
