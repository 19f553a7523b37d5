//! The two halves of a sign-in.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use agentlens_outbound::{AllowList, OutboundError};
use openidconnect::{SubjectIdentifier, UserInfoError};

use crate::callback::Callback;
use crate::claims::{Claims, IdTokenClaims, UserInfoClaims};
use crate::discovery::{Description, Descriptions};
use crate::error::SignInError;
use crate::exchange::{Exchange, Tokens};
use crate::flow::{ENTROPY_BYTES, FlowSecrets, Started};
use crate::github;
use crate::http::{Http, unexpected_status, unreadable};
use crate::id_token::{Expected, Rejection, Unverified};
use crate::identity::Identity;
use crate::keys::KeySets;
use crate::provider::{ClientCredentials, Provider};

/// What is asked of an OpenID provider.
const SCOPES: [&str; 3] = ["openid", "email", "profile"];

/// Signs people in through providers. Cheap to clone; clones share what they know of the providers.
#[derive(Clone)]
pub struct SignIn {
    http: Http,
    shared: Arc<Shared>,
}

struct Shared {
    descriptions: Descriptions,
    keys: KeySets,
}

impl SignIn {
    /// Reaches providers on the public internet over HTTPS, and what is allowed beside it.
    ///
    /// # Errors
    /// When the system's certificates can't be used.
    pub fn new(allowed: AllowList) -> Result<Self, OutboundError> {
        let shared = Shared { descriptions: Descriptions::new(), keys: KeySets::new() };
        Ok(Self { http: Http::new(allowed)?, shared: Arc::new(shared) })
    }

    /// Begins a sign-in. Each provider, and each connection of an org, needs a redirect address of its own. `entropy`
    /// must come from the system's generator and be used once.
    ///
    /// # Errors
    /// When the settings are wrong, or the provider's description can't be fetched.
    pub async fn begin(
        &self,
        provider: &Provider,
        redirect_uri: &str,
        entropy: &[u8; ENTROPY_BYTES],
        now_us: i64,
    ) -> Result<Started, SignInError> {
        let flow = FlowSecrets::new(provider, entropy);
        let url = match provider {
            Provider::Github { client, endpoints } => {
                let exchange = github::exchange(&self.http, client, endpoints, redirect_uri)?;
                exchange.authorization_url(&flow, github::SCOPES, &[])
            }
            Provider::Google { .. } | Provider::Oidc(_) => {
                let description = self.describe(provider, now_us).await?;
                let exchange = oidc_exchange(&description, provider.client(), redirect_uri)?;
                let scopes = SCOPES.into_iter().chain(provider.extra_scopes());
                exchange.authorization_url(&flow, scopes, &[("nonce", flow.nonce.as_str())])
            }
        };
        Ok(Started { url, flow })
    }

    /// Ends a sign-in: checks what the browser brought back, exchanges the code, and finds out who the person is. The
    /// caller has taken the flow away by then, so that it is used once, and has compared its cookie.
    ///
    /// # Errors
    /// When anything is not as it should be; nobody is to be signed in then.
    pub async fn finish(
        &self,
        provider: &Provider,
        flow: &FlowSecrets,
        callback: Callback,
        redirect_uri: &str,
        now_us: i64,
    ) -> Result<Identity, SignInError> {
        flow.check_provider(provider)?;
        let names_issuer = callback.iss.is_some();
        let code = callback.into_code(provider, flow)?;
        if let Provider::Github { client, endpoints } = provider {
            let exchange = github::exchange(&self.http, client, endpoints, redirect_uri)?;
            let tokens = exchange.redeem(&self.http, code, flow).await?;
            return github::identify(&self.http, endpoints, &tokens.access_token).await;
        }
        let description = self.describe(provider, now_us).await?;
        if description.names_issuer && !names_issuer {
            return Err(SignInError::WrongIssuer(
                "the answer has no `iss`, which this provider always sends".into(),
            ));
        }
        let exchange = oidc_exchange(&description, provider.client(), redirect_uri)?;
        let tokens = exchange.redeem(&self.http, code, flow).await?;
        let claims = self.verify(provider, &description, &tokens, flow, now_us).await?;
        let mut identity = Identity::new(provider.key(), claims.subject().as_str())?;
        Claims::from(&claims).add_to(&mut identity, provider.role_claim());
        self.complete(provider, &description, &tokens, &mut identity).await?;
        Ok(identity)
    }

    /// Tries what can be tried without a person: fetches the provider's description and keys. For the page where an
    /// admin sets a connection up.
    ///
    /// # Errors
    /// What would make every sign-in fail.
    pub async fn check(&self, provider: &Provider, now_us: i64) -> Result<(), SignInError> {
        if matches!(provider, Provider::Github { .. }) {
            return Ok(());
        }
        let description = self.describe(provider, now_us).await?;
        self.shared.keys.at(&description.jwks).current(&self.http, now_us).await?;
        Ok(())
    }

    async fn describe(&self, provider: &Provider, now_us: i64) -> Result<Arc<Description>, SignInError> {
        match provider {
            Provider::Google { endpoints, .. } => Description::of_google(&self.http, endpoints).map(Arc::new),
            Provider::Github { .. } | Provider::Oidc(_) => {
                self.shared.descriptions.get(&self.http, provider.issuer(), now_us).await
            }
        }
    }

    /// The claims of the id token, verified with the keys that are known, or with newer ones if it names another key.
    async fn verify(
        &self,
        provider: &Provider,
        description: &Description,
        tokens: &Tokens,
        flow: &FlowSecrets,
        now_us: i64,
    ) -> Result<IdTokenClaims, SignInError> {
        let Some(id_token) = &tokens.id_token else {
            return Err(SignInError::InvalidAnswer("the token endpoint gave no id token".into()));
        };
        let token = Unverified::read(id_token)?;
        let expected = Expected {
            issuer: &description.issuer,
            client_id: &provider.client().id,
            nonce: &flow.nonce,
            access_token: &tokens.access_token,
            now_us,
        };
        let set = self.shared.keys.at(&description.jwks);
        let keys = set.current(&self.http, now_us).await?;
        let unknown = || SignInError::InvalidToken("the id token is signed with an unknown key".into());
        match token.verify(&keys, &expected) {
            Ok(claims) => return Ok(claims),
            Err(Rejection::Invalid(error)) => return Err(error),
            Err(Rejection::UnknownKey) => {}
        }
        let newer = set.newer(&self.http, &keys, now_us).await?.ok_or_else(unknown)?;
        match token.verify(&newer, &expected) {
            Ok(claims) => Ok(claims),
            Err(Rejection::Invalid(error)) => Err(error),
            Err(Rejection::UnknownKey) => Err(unknown()),
        }
    }

    /// Asks the userinfo address for what the id token doesn't say: strict providers put only the subject into a token.
    async fn complete(
        &self,
        provider: &Provider,
        description: &Description,
        tokens: &Tokens,
        identity: &mut Identity,
    ) -> Result<(), SignInError> {
        const WHAT: &str = "the userinfo endpoint";
        let lacks_roles = provider.role_claim().is_some() && identity.role_values.is_empty();
        let Some(url) = &description.userinfo else { return Ok(()) };
        if identity.email.is_some() && identity.email_verified.is_some() && !lacks_roles {
            return Ok(());
        }
        let authorization = format!("Bearer {}", tokens.access_token);
        let fields = [("accept", "application/json"), ("authorization", authorization.as_str())];
        let answer = self.http.get(WHAT, url.clone(), &fields).await?;
        if answer.status.as_u16() != 200 {
            return Err(unexpected_status(WHAT, &answer));
        }
        // Section 5.3.2 of OpenID Connect Core: with another subject it is an answer to somebody else's token.
        let subject = SubjectIdentifier::new(identity.subject.clone());
        let claims = UserInfoClaims::from_json::<Infallible>(&answer.body, Some(&subject));
        let claims = claims.map_err(|error| match error {
            UserInfoError::ClaimsVerification(_) => {
                SignInError::InvalidToken("the userinfo endpoint speaks of another person".into())
            }
            _ => unreadable(WHAT),
        })?;
        Claims::from(&claims).add_to(identity, provider.role_claim());
        Ok(())
    }
}

fn oidc_exchange(
    description: &Description,
    client: &ClientCredentials,
    redirect_uri: &str,
) -> Result<Exchange, SignInError> {
    let Description { authorization, token, auth_type, .. } = description;
    Exchange::new(client, authorization, token, auth_type.clone(), redirect_uri)
}

impl fmt::Debug for SignIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SignIn")
    }
}
