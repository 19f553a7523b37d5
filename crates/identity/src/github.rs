//! GitHub, which gives no id token: who the person is, its API says.

use agentlens_outbound::Url;
use oauth2::AuthType;
use serde::Deserialize;

use crate::error::SignInError;
use crate::exchange::Exchange;
use crate::http::{Http, parse, unexpected_status};
use crate::identity::Identity;
use crate::provider::{ClientCredentials, GithubEndpoints, Provider};

/// Reading the addresses of the person, and nothing else.
pub(crate) const SCOPES: [&str; 1] = ["user:email"];

pub(crate) fn exchange(
    http: &Http,
    client: &ClientCredentials,
    endpoints: &GithubEndpoints,
    redirect_uri: &str,
) -> Result<Exchange, SignInError> {
    let authorization = http.parse_url("GitHub's authorization address", &endpoints.authorization)?;
    let token = http.parse_url("GitHub's token address", &endpoints.token)?;
    Exchange::new(client, authorization.as_str(), token.as_str(), AuthType::RequestBody, redirect_uri)
}

/// The number is the person: a login can be changed, and given to somebody else.
#[derive(Deserialize)]
struct User {
    id: u64,
    login: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Email {
    email: String,
    primary: bool,
    verified: bool,
}

/// Asks the API whose token it is.
pub(crate) async fn identify(
    http: &Http,
    endpoints: &GithubEndpoints,
    access_token: &str,
) -> Result<Identity, SignInError> {
    let authorization = format!("Bearer {access_token}");
    let fields = [
        ("accept", "application/vnd.github+json"),
        ("authorization", authorization.as_str()),
        ("x-github-api-version", "2022-11-28"),
    ];
    let address = |path: &str| -> Result<Url, SignInError> {
        http.parse_url("GitHub's API", &format!("{}{path}", endpoints.api))
    };
    let answer = http.get("GitHub's user", address("/user")?, &fields).await?;
    if answer.status.as_u16() != 200 {
        return Err(unexpected_status("GitHub's user", &answer));
    }
    let user: User = parse("GitHub's user", &answer)?;
    let key = Provider::GITHUB_KEY.to_owned();
    let mut identity = Identity::new(key, &user.id.to_string())?;
    identity.set_name(user.name.as_deref().unwrap_or(&user.login));
    let answer = http.get("GitHub's addresses", address("/user/emails?per_page=100")?, &fields).await?;
    match answer.status.as_u16() {
        200 => {
            let emails: Vec<Email> = parse("GitHub's addresses", &answer)?;
            // Anybody may add an address; only this one is the person's own, and in use.
            if let Some(entry) = emails.iter().find(|entry| entry.primary && entry.verified) {
                identity.set_email(&entry.email, Some(true));
            }
        }
        // The person didn't allow it. Who is known already can sign in without.
        403 | 404 => {}
        _ => return Err(unexpected_status("GitHub's addresses", &answer)),
    }
    Ok(identity)
}
