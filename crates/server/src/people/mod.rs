//! What signing in needs beside the store: keys of tokens, hashing of passwords, rates of forms, and how this server is set up.

mod alarm;
pub(crate) mod providers;
pub(crate) mod steps;

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use agentlens_domain::keys::ServerSecret;
use agentlens_domain::passwords::{self, BreachedPasswords, PasswordOwner, RefusedPassword};
use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::guessing::DeviceKeys;
use agentlens_domain::people::tokens::TokenKeys;
use agentlens_domain::rates::Rate;
use agentlens_domain::sealed_box::SecretBox;
use agentlens_identity::{Provider, SignIn};
use agentlens_mail::PublicUrl;

pub(crate) use self::alarm::Burst;
use self::alarm::SignUpAlarm;
use crate::auth::cookies::Cookies;
use crate::error::ApiError;
use crate::rates::RateLimit;
use crate::shares::ClientNetwork;

/// Forms that one network may send.
const FORMS: Rate = Rate::per_minute(30);
/// Mails that one address gets because someone asked for them.
const MAILS: Rate = Rate::per_hour(5);
/// How long a password waits to be hashed.
const HASH_PATIENCE: Duration = Duration::from_secs(5);

/// Who runs the server, which decides what is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    /// A company for itself: people come by invitation or command line.
    SelfHosted,
    /// A service: anyone may sign up.
    Cloud,
}

/// How people come to this server.
#[derive(Debug, Clone)]
pub struct PeopleSettings {
    /// Who runs it.
    pub deployment: Deployment,
    /// Where people reach it.
    pub public_url: PublicUrl,
    /// Whether new sign-ups are stopped.
    pub are_sign_ups_stopped: bool,
    /// Which version of the terms a sign-up accepts.
    pub terms_version: Option<String>,
    /// Domains whose addresses may sign up; all if there are none.
    pub allowed_domains: Vec<String>,
    /// Addresses and domains that may not.
    pub refused_addresses: Vec<String>,
    /// A file of SHA-1 hashes of breached passwords, sorted.
    pub breached_passwords: Option<PathBuf>,
    /// Google, if this server is registered there.
    pub google: Option<Provider>,
    /// GitHub, if this server is registered there.
    pub github: Option<Provider>,
    /// Whether mail can be sent. Without, links are in the log.
    pub has_mail_server: bool,
    /// From how many sign-ups within ten minutes on there is an alarm.
    pub sign_up_alarm: u64,
    /// Who is told by mail of what operators should know.
    pub operator_mail: Option<EmailAddress>,
}

impl PeopleSettings {
    /// Whether an address may sign up.
    pub fn admits(&self, email: &EmailAddress) -> bool {
        let is_of = |domain: &String| {
            let domain = domain.trim_start_matches('@').to_ascii_lowercase();
            email.domain() == domain || email.domain().ends_with(&format!(".{domain}"))
        };
        let is_refused = |text: &String| text.eq_ignore_ascii_case(email.key()) || is_of(text);
        (self.allowed_domains.is_empty() || self.allowed_domains.iter().any(is_of))
            && !self.refused_addresses.iter().any(is_refused)
    }

    /// Refuses an address that can't make an account by itself: the server takes no sign-ups, or not with this address.
    pub(crate) fn check_sign_up(&self, email: &EmailAddress) -> Result<(), ApiError> {
        self.check_is_open()?;
        if self.admits(email) {
            return Ok(());
        }
        Err(ApiError::forbidden_because("address_refused", "Addresses of this domain can't sign up here"))
    }

    /// Refuses where nobody can make an account.
    pub(crate) fn check_is_open(&self) -> Result<(), ApiError> {
        let refusal = if self.deployment == Deployment::SelfHosted {
            ("sign_up_closed", "People come to this server by invitation only")
        } else if self.are_sign_ups_stopped {
            ("sign_up_stopped", "This server takes no new sign-ups now")
        } else {
            return Ok(());
        };
        Err(ApiError::forbidden_because(refusal.0, refusal.1))
    }

    /// Refuses who does not accept the terms of this server, if it has any.
    pub(crate) fn check_terms(&self, accepted: Option<&str>) -> Result<(), ApiError> {
        match &self.terms_version {
            Some(version) if accepted != Some(version) => Err(ApiError::invalid_field(
                "terms_version",
                format!("must be {version:?}, the version that is accepted by making an account"),
            )),
            _ => Ok(()),
        }
    }
}

/// The service.
pub struct People {
    /// How this server is set up.
    pub settings: PeopleSettings,
    /// Keys of the digests of tokens.
    pub tokens: TokenKeys,
    /// Keys of the cookies of known browsers.
    pub devices: DeviceKeys,
    /// Encrypts what must be read again, such as seeds of codes.
    pub secrets: SecretBox,
    /// Signs people in through providers.
    pub sign_in: SignIn,
    forms: RateLimit<ClientNetwork>,
    mails: RateLimit<[u8; 32]>,
    sign_ups: SignUpAlarm,
    hashing: Arc<Semaphore>,
    breached: Option<Mutex<BreachedPasswords<BufReader<File>>>>,
}

impl People {
    /// The service of a server with this secret.
    ///
    /// # Errors
    /// When the file of breached passwords can't be read.
    pub fn new(settings: PeopleSettings, secret: &ServerSecret, sign_in: SignIn) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let open = |path: &PathBuf| BreachedPasswords::open(BufReader::new(File::open(path)?));
        Ok(Self {
            tokens: TokenKeys::of(secret),
            devices: DeviceKeys::of(secret),
            secrets: SecretBox::of(secret),
            sign_in,
            forms: RateLimit::new(FORMS),
            mails: RateLimit::new(MAILS),
            sign_ups: SignUpAlarm::new(settings.sign_up_alarm),
            hashing: Arc::new(Semaphore::new(cores)),
            breached: settings.breached_passwords.as_ref().map(open).transpose()?.map(Mutex::new),
            settings,
        })
    }

    /// How cookies are set.
    pub fn cookies(&self) -> Cookies {
        Cookies { is_secure: self.settings.public_url.is_https() }
    }

    /// The origin of the server's own pages.
    pub fn public_origin(&self) -> &str {
        self.settings.public_url.origin()
    }

    /// What each network may send.
    pub(crate) fn forms(&self) -> &RateLimit<ClientNetwork> {
        &self.forms
    }

    /// Whether an address may get one more mail that someone asked for. Nobody is told.
    pub(crate) fn may_mail(&self, purpose: &str, email_key: &str, now_us: i64) -> bool {
        use sha2::{Digest, Sha256};
        // Counted by purpose, so that strangers who ask for one kind don't use up another.
        let of = Sha256::new().chain_update(purpose).chain_update([0]).chain_update(email_key);
        self.mails.count(of.finalize().into(), now_us).is_ok()
    }

    /// Counts a sign-up; the log tells of a burst of them, and so does what is returned.
    pub(crate) fn count_sign_up(&self, now_us: i64) -> Option<Burst> {
        let burst = self.sign_ups.count(now_us)?;
        tracing::warn!(
            sign_ups = burst.sign_ups,
            minutes = burst.minutes,
            "unusually many people sign up; AGENTLENS_STOP_SIGN_UPS stops it"
        );
        Some(burst)
    }

    /// Whether a password is right. For an account without one, or none at all, it takes as long and is wrong.
    pub(crate) async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, ApiError> {
        self.hash_with(move || passwords::verify(&password, stored.as_deref())).await
    }

    /// The hash of a new password; refused if it is too short, common, easily guessed or breached.
    pub(crate) async fn hash_new(
        self: &Arc<Self>,
        field: &'static str,
        password: String,
        owner: PasswordOwner<'_>,
    ) -> Result<String, ApiError> {
        let [name, address, org] = [owner.name, owner.address, owner.org].map(str::to_owned);
        let people = Arc::clone(self);
        let hashed = self.hash_with(move || {
            let owner = PasswordOwner { name: &name, address: &address, org: &org };
            passwords::check_new(&password, &owner)
                .map_err(|refused| ApiError::invalid_field(field, refused.to_string()))?;
            people.refuse_breached(field, &password)?;
            passwords::hash(&password).map_err(|error| {
                tracing::error!(error = %error, "a password can't be hashed");
                ApiError::internal()
            })
        });
        hashed.await?
    }

    fn refuse_breached(&self, field: &str, password: &str) -> Result<(), ApiError> {
        let Some(breached) = &self.breached else { return Ok(()) };
        match breached.lock().contains(password) {
            Ok(false) => Ok(()),
            Ok(true) => Err(ApiError::invalid_field(field, RefusedPassword::Breached.to_string())),
            Err(error) => {
                tracing::error!(error = %error, "the file of breached passwords can't be read");
                Err(ApiError::internal())
            }
        }
    }

    /// One password a processor at a time: each takes all of one, and 19 MiB.
    async fn hash_with<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let busy = || ApiError::unavailable("Too many people are signing in at once");
        let permit = timeout(HASH_PATIENCE, Arc::clone(&self.hashing).acquire_owned()).await;
        let permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
        let hashed = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        hashed.await.map_err(|_| ApiError::internal())
    }
}
