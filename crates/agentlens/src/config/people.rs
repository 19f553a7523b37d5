//! How people come to the server, and how mail reaches them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use agentlens_domain::entitlements::Entitlements;
use agentlens_domain::people::email::{EmailAddress, ascii_domain};
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
