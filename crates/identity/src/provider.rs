//! Whom to ask, and as whom.

use std::fmt;

/// A text that is not shown when its owner is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// How this server is known to the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// The client id.
    pub id: String,
    /// The client secret.
    pub secret: Secret,
}

/// A way to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// Google, by OpenID Connect.
    Google {
        /// The server's registration at Google.
        client: ClientCredentials,
        /// Where Google is; [`GoogleEndpoints::default`] but for tests.
        endpoints: GoogleEndpoints,
    },
    /// GitHub, by OAuth 2 and its API.
    Github {
        /// The server's registration at GitHub.
        client: ClientCredentials,
        /// Where GitHub is; [`GithubEndpoints::default`] but for tests.
        endpoints: GithubEndpoints,
    },
    /// The OpenID provider of an org.
    Oidc(OidcConnection),
}

/// What an org says about its OpenID provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConnection {
    /// The id of the connection. Subjects are unique within it.
    pub id: String,
    /// The issuer, to the letter as the provider writes it.
    pub issuer: String,
    /// The server's registration there.
    pub client: ClientCredentials,
    /// Scopes to ask for beside `openid email profile`.
    pub scopes: Vec<String>,
    /// The claim that roles are mapped from: its name (`groups`), or a path of names (`realm_access.roles`). Not one
    /// of the standard claims.
    pub role_claim: Option<String>,
}

/// Google's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleEndpoints {
    /// The issuer in id tokens.
    pub issuer: String,
    /// Where the browser is sent.
    pub authorization: String,
    /// Where the code is exchanged.
    pub token: String,
    /// Where the keys are.
    pub jwks: String,
}

impl Default for GoogleEndpoints {
    fn default() -> Self {
        Self {
            issuer: "https://accounts.google.com".to_owned(),
            authorization: "https://accounts.google.com/o/oauth2/v2/auth".to_owned(),
            token: "https://oauth2.googleapis.com/token".to_owned(),
            jwks: "https://www.googleapis.com/oauth2/v3/certs".to_owned(),
        }
    }
}

/// GitHub's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubEndpoints {
    /// What GitHub calls itself in its answers (RFC 9207).
    pub issuer: String,
    /// Where the browser is sent.
    pub authorization: String,
    /// Where the code is exchanged.
    pub token: String,
    /// Where the API begins, without a slash at the end.
    pub api: String,
}

impl Default for GithubEndpoints {
    fn default() -> Self {
        Self {
            issuer: "https://github.com/login/oauth".to_owned(),
            authorization: "https://github.com/login/oauth/authorize".to_owned(),
            token: "https://github.com/login/oauth/access_token".to_owned(),
            api: "https://api.github.com".to_owned(),
        }
    }
}

impl Provider {
    pub(crate) const GITHUB_KEY: &str = "github";

    /// Google itself.
    pub fn google(client: ClientCredentials) -> Self {
        Self::Google { client, endpoints: GoogleEndpoints::default() }
    }

    /// GitHub itself.
    pub fn github(client: ClientCredentials) -> Self {
        Self::Github { client, endpoints: GithubEndpoints::default() }
    }

    /// What subjects are unique in: `google`, `github`, or `oidc:` and the connection's id.
    pub fn key(&self) -> String {
        match self {
            Self::Google { .. } => "google".to_owned(),
            Self::Github { .. } => Self::GITHUB_KEY.to_owned(),
            Self::Oidc(connection) => format!("oidc:{}", connection.id),
        }
    }

    /// What must not change between the beginning of a flow and its end: a code of one issuer must never be sent to
    /// another.
    pub(crate) fn binding(&self) -> String {
        format!("{} {} {}", self.key(), self.issuer(), self.client().id)
    }

    pub(crate) fn issuer(&self) -> &str {
        match self {
            Self::Google { endpoints, .. } => &endpoints.issuer,
            Self::Github { endpoints, .. } => &endpoints.issuer,
            Self::Oidc(connection) => &connection.issuer,
        }
    }

    pub(crate) fn client(&self) -> &ClientCredentials {
        match self {
            Self::Google { client, .. } | Self::Github { client, .. } => client,
            Self::Oidc(connection) => &connection.client,
        }
    }

    pub(crate) fn extra_scopes(&self) -> impl Iterator<Item = &str> {
        let scopes = match self {
            Self::Google { .. } | Self::Github { .. } => &[],
            Self::Oidc(connection) => connection.scopes.as_slice(),
        };
        scopes.iter().map(String::as_str)
    }

    pub(crate) fn role_claim(&self) -> Option<&str> {
        match self {
            Self::Google { .. } | Self::Github { .. } => None,
            Self::Oidc(connection) => connection.role_claim.as_deref(),
        }
    }
}
