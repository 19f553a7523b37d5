//! How people come to the server, and how mail reaches them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use agentlens_domain::entitlements::Entitlements;
use agentlens_domain::people::email::{EmailAddress, ascii_domain};
use agentlens_identity::{ClientCredentials, GithubEndpoints, GoogleEndpoints, Provider, Secret};
use agentlens_mail::{Mailer, PublicUrl, Sender, SmtpServer};
use agentlens_server::people::{Deployment, PeopleSettings};

use super::secrets::resolve;

/// Who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeploymentOption {
    /// A company for itself: people come by invitation or command line.
    SelfHosted,
    /// A service that anyone may sign up to.
    Cloud,
}

/// Options about people.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeopleOptions {
    /// Who runs the server: with `self-hosted`, people come by invitation or command line; with `cloud`, anyone may sign up.
    #[arg(long, env = "AGENTLENS_DEPLOYMENT", value_enum, default_value_t = DeploymentOption::SelfHosted)]
    pub(crate) deployment: DeploymentOption,
    /// Where people reach the server, such as https://lens.example.com. Links in mails begin with it, and browsers that are signed in must
    /// come from it. By default the address that the server listens on.
    #[arg(long, env = "AGENTLENS_PUBLIC_URL")]
    public_url: Option<PublicUrl>,
    /// The mail server: smtps://user:password@mail.example.com, or smtp:// with STARTTLS. Without one, links are written to the log.
    #[arg(long, env = "AGENTLENS_SMTP_URL", hide_env_values = true)]
    smtp_url: Option<String>,
    /// A file that holds that address.
    #[arg(long, env = "AGENTLENS_SMTP_URL_FILE")]
    smtp_url_file: Option<PathBuf>,
    /// Who mail is from, such as "AgentLens <noreply@example.com>". Needed with a mail server.
    #[arg(long, env = "AGENTLENS_MAIL_FROM")]
    mail_from: Option<Sender>,
    /// Take no new sign-ups. People who have an account go on, and invitations still work.
    #[arg(long, env = "AGENTLENS_STOP_SIGN_UPS")]
    stop_sign_ups: bool,
    /// The version of your terms that people accept by making an account, such as 2026-11-28.
    #[arg(long, env = "AGENTLENS_TERMS_VERSION")]
    terms_version: Option<String>,
    /// Mail domains whose addresses may sign up, separated by commas; all unless given.
    #[arg(long, env = "AGENTLENS_SIGN_UP_DOMAINS", value_delimiter = ',')]
    sign_up_domains: Vec<String>,
    /// Addresses and mail domains that may not sign up, separated by commas.
    #[arg(long, env = "AGENTLENS_SIGN_UP_REFUSE", value_delimiter = ',')]
    sign_up_refuse: Vec<String>,
    /// A file of mail domains that may not sign up, one a line, such as a list of those for disposable addresses.
    #[arg(long, env = "AGENTLENS_SIGN_UP_REFUSE_FILE")]
    sign_up_refuse_file: Option<PathBuf>,
    /// From how many sign-ups within ten minutes on the log and AGENTLENS_OPERATOR_MAIL are told, counted by each node.
    #[arg(long, env = "AGENTLENS_SIGN_UP_ALARM", default_value_t = 100)]
    sign_up_alarm: u64,
    /// Who is told by mail of what operators should know.
    #[arg(long, env = "AGENTLENS_OPERATOR_MAIL", value_parser = address)]
    operator_mail: Option<EmailAddress>,
    /// A file of SHA-1 hashes of breached passwords, sorted, one a line, as "Have I Been Pwned" offers it; none of them is taken as a new
    /// password.
    #[arg(long, env = "AGENTLENS_BREACHED_PASSWORDS")]
    breached_passwords: Option<PathBuf>,
    /// The id of this server's OAuth client at Google. With it, people can sign in through Google; the redirect address to register is the
    /// public address with /v1/sign-in/google/callback.
    #[arg(long, env = "AGENTLENS_GOOGLE_CLIENT_ID")]
    google_client_id: Option<String>,
    /// The secret of that client.
    #[arg(long, env = "AGENTLENS_GOOGLE_CLIENT_SECRET", hide_env_values = true)]
    google_client_secret: Option<String>,
    /// A file that holds that secret.
    #[arg(long, env = "AGENTLENS_GOOGLE_CLIENT_SECRET_FILE")]
    google_client_secret_file: Option<PathBuf>,
    /// Where a double of Google is, for tests.
    #[arg(long, env = "AGENTLENS_TEST_GOOGLE_URL", hide = true)]
    test_google_url: Option<String>,
    /// The id of this server's OAuth app at GitHub. With it, people can sign in through GitHub; the redirect address to register is the
    /// public address with /v1/sign-in/github/callback.
    #[arg(long, env = "AGENTLENS_GITHUB_CLIENT_ID")]
    github_client_id: Option<String>,
    /// The secret of that app.
    #[arg(long, env = "AGENTLENS_GITHUB_CLIENT_SECRET", hide_env_values = true)]
    github_client_secret: Option<String>,
    /// A file that holds that secret.
    #[arg(long, env = "AGENTLENS_GITHUB_CLIENT_SECRET_FILE")]
    github_client_secret_file: Option<PathBuf>,
    /// Where a double of GitHub is, for tests.
    #[arg(long, env = "AGENTLENS_TEST_GITHUB_URL", hide = true)]
    test_github_url: Option<String>,
    /// Limits of what an org may have, for tests: members=3,api_keys=10.
    #[arg(long, env = "AGENTLENS_LIMITS", hide = true)]
    limits: Option<Entitlements>,
}

/// An entry of a list of addresses and domains, as addresses are compared.
fn as_listed(entry: &str) -> String {
    let entry = entry.trim();
    let domain = ascii_domain(entry.trim_start_matches('@'));
    let address = EmailAddress::parse(entry).ok().map(|address| address.key().to_owned());
    address.or(domain).unwrap_or_else(|| entry.to_owned())
}

fn address(text: &str) -> Result<EmailAddress, String> {
    EmailAddress::parse(text).map_err(|error| error.to_string())
}

impl PeopleOptions {
    /// How this server is set up, which listens on `address`.
    pub(crate) fn settings(&self, address: SocketAddr) -> Result<PeopleSettings, String> {
        let mut refused_addresses = self.sign_up_refuse.clone();
        if let Some(path) = &self.sign_up_refuse_file {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            refused_addresses.extend(lines.map(str::to_owned));
        }
        Ok(PeopleSettings {
            deployment: match self.deployment {
                DeploymentOption::SelfHosted => Deployment::SelfHosted,
                DeploymentOption::Cloud => Deployment::Cloud,
            },
            public_url: self.public_url(address)?,
            are_sign_ups_stopped: self.stop_sign_ups,
            terms_version: self.terms_version.clone(),
            allowed_domains: self.sign_up_domains.iter().map(|entry| as_listed(entry)).collect(),
            refused_addresses: refused_addresses.iter().map(|entry| as_listed(entry)).collect(),
            breached_passwords: self.breached_passwords.clone(),
            google: self.google()?,
            github: self.github()?,
            has_mail_server: self.smtp_url()?.is_some(),
            sign_up_alarm: self.sign_up_alarm,
            operator_mail: self.operator_mail.clone(),
        })
    }

    /// What sends mail.
    pub(crate) fn mailer(&self, address: SocketAddr) -> Result<Mailer, String> {
        let public_url = self.public_url(address)?;
        let Some(url) = self.smtp_url()? else { return Ok(Mailer::log(public_url)) };
        let server: SmtpServer = url.parse().map_err(|error| format!("AGENTLENS_SMTP_URL: {error}"))?;
        let sender = self.mail_from.clone().ok_or(
            "with a mail server AGENTLENS_MAIL_FROM must say who mail is from, such as \"AgentLens <noreply@example.com>\"",
        )?;
        Mailer::smtp(public_url, sender, server).map_err(|error| format!("AGENTLENS_SMTP_URL: {error}"))
    }

    /// How many of something an org may have.
    pub(crate) fn entitlements(&self) -> Entitlements {
        self.limits.clone().unwrap_or_default()
    }

    fn google(&self) -> Result<Option<Provider>, String> {
        let secret = resolve(
            "AGENTLENS_GOOGLE_CLIENT_SECRET",
            self.google_client_secret.as_deref(),
            self.google_client_secret_file.as_deref(),
        )?;
        let client = credentials("AGENTLENS_GOOGLE_CLIENT", self.google_client_id.as_deref(), secret)?;
        let endpoints = match &self.test_google_url {
            None => GoogleEndpoints::default(),
            Some(url) => GoogleEndpoints {
                authorization: format!("{url}/o/oauth2/v2/auth"),
                token: format!("{url}/token"),
                jwks: format!("{url}/oauth2/v3/certs"),
                ..GoogleEndpoints::default()
            },
        };
        Ok(client.map(|client| Provider::Google { client, endpoints }))
    }

    fn github(&self) -> Result<Option<Provider>, String> {
        let secret = resolve(
            "AGENTLENS_GITHUB_CLIENT_SECRET",
            self.github_client_secret.as_deref(),
            self.github_client_secret_file.as_deref(),
        )?;
        let client = credentials("AGENTLENS_GITHUB_CLIENT", self.github_client_id.as_deref(), secret)?;
        let endpoints = match &self.test_github_url {
            None => GithubEndpoints::default(),
            Some(url) => GithubEndpoints {
                authorization: format!("{url}/login/oauth/authorize"),
                token: format!("{url}/login/oauth/access_token"),
                api: format!("{url}/api"),
                ..GithubEndpoints::default()
            },
        };
        Ok(client.map(|client| Provider::Github { client, endpoints }))
    }

    fn public_url(&self, address: SocketAddr) -> Result<PublicUrl, String> {
        if let Some(url) = &self.public_url {
            return Ok(url.clone());
        }
        let host =
            if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let url = format!("http://{host}:{}", address.port());
        url.parse().map_err(|error| format!("{url}: {error}"))
    }

    fn smtp_url(&self) -> Result<Option<String>, String> {
        resolve("AGENTLENS_SMTP_URL", self.smtp_url.as_deref(), self.smtp_url_file.as_deref())
    }
}

/// A registration at a provider: both halves of it, or none. `name` is what both variables begin with.
fn credentials(
    name: &str,
    id: Option<&str>,
    secret: Option<String>,
) -> Result<Option<ClientCredentials>, String> {
    let id = id.map(str::trim).filter(|id| !id.is_empty());
    match (id, secret) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => {
            Ok(Some(ClientCredentials { id: id.to_owned(), secret: Secret::new(secret) }))
        }
        _ => Err(format!("{name}_ID and {name}_SECRET must be given together")),
    }
}
