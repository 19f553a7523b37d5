//! Opening the store and the secret, and making what a fresh server needs: the default org, a first key, a login.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, SaltString};

use agentlens_domain::ids::{KeyId, OrgId, UserId};
use agentlens_domain::keys::{ApiKey, KeyKind, KeyScope, ServerSecret};
use agentlens_store::{NewKey, Store, StoreError};

use crate::clock;
use crate::config::StoreOptions;

/// Opens the store that the options name.
pub(crate) async fn open_store(options: &StoreOptions) -> Result<Store, String> {
    let clock = clock::open()?;
    let store = match &options.database_url {
        None => Store::open_sqlite(&options.data_dir).await,
        Some(url) => Store::open_postgres(url, options.database_connections).await,
    };
    store.map(|store| store.with_clock(clock)).map_err(|error| error.to_string())
}

/// The server's secret: given, or kept in a file that only its owner can read.
pub(crate) async fn open_secret(options: &StoreOptions, store: &Store) -> Result<ServerSecret, String> {
    let secret = match &options.secret_key {
        Some(text) => {
            ServerSecret::parse(text).ok_or("AGENTLENS_SECRET_KEY must be 64 hexadecimal digits")?
        }
        None => secret_file(&options.data_dir)?,
    };
    // Keys are digested under the secret: with another one, no key would be known. Better to say so than to answer 401.
    let check = hex_of(&secret.digest("agentlens secret check"));
    let standing =
        store.control().ensure_setting("secret_check", &check).await.map_err(|error| error.to_string())?;
    if standing != check {
        return Err("the server's secret is not the one that this store was made with; give the same AGENTLENS_SECRET_KEY, or the same secret.key in the data directory".to_owned());
    }
    Ok(secret)
}

fn secret_file(directory: &Path) -> Result<ServerSecret, String> {
    let path = directory.join("secret.key");
    let describe = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => ServerSecret::parse(&text)
            .ok_or_else(|| format!("{} does not hold 64 hexadecimal digits", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(describe)?;
            let secret = ServerSecret::generate();
            match write_private(&path, &secret.to_text()) {
                // Another process was faster; its secret stands.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => secret_file(directory),
                Err(error) => Err(describe(error)),
                Ok(()) => Ok(secret),
            }
        }
        Err(error) => Err(describe(error)),
    }
}

/// Writes a file that only its owner can read; whole or not at all.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&partial, path);
    std::fs::remove_file(&partial)?;
    linked
}

/// What a fresh server shows, once.
#[derive(Debug, Default)]
pub(crate) struct FirstSteps {
    /// A key that was made.
    pub(crate) api_key: Option<ApiKey>,
    /// A login that was made: e-mail and password.
    pub(crate) login: Option<(String, String)>,
}

/// Makes the default org, and a first key and login where there are none.
pub(crate) async fn first_steps(
    store: &Store,
    secret: &ServerSecret,
    bootstrap_key: Option<&str>,
) -> Result<FirstSteps, String> {
    let text = |error: StoreError| error.to_string();
    let (control, org, now_us) = (store.control(), OrgId::default_org(), store.clock().now_us());
    control.ensure_org(&org, "Default", now_us).await.map_err(text)?;
    let mut steps = FirstSteps::default();
    if let Some(given) = bootstrap_key.filter(|key| !key.is_empty()) {
        let key = ApiKey::parse(given).ok_or(
            "AGENTLENS_BOOTSTRAP_API_KEY is not a well-formed key; `agentlens key generate` prints one",
        )?;
        match store_key(store, secret, &org, &key, &KeyOptions::named("bootstrap")).await {
            Ok(_) | Err(StoreError::Exists(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    } else if control.list_keys(&org).await.map_err(text)?.is_empty() {
        let key = ApiKey::generate(KeyKind::Live);
        store_key(store, secret, &org, &key, &KeyOptions::named("first key")).await.map_err(text)?;
        steps.api_key = Some(key);
    }
    if control.count_users().await.map_err(text)? == 0 {
        let (email, password) = ("admin@localhost".to_owned(), random_password());
        let made =
            control.insert_owner(&org, &UserId::random(), &email, &hash_password(&password)?, now_us).await;
        match made {
            Ok(()) => steps.login = Some((email, password)),
            // Another node was faster.
            Err(StoreError::Exists(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(steps)
}

/// What a key is for.
#[derive(Debug)]
pub(crate) struct KeyOptions {
    /// Its name.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) scopes: Vec<KeyScope>,
    /// Its workspace.
    pub(crate) workspace: String,
    /// Its environment.
    pub(crate) environment: String,
    /// When it stops working.
    pub(crate) expires_us: Option<i64>,
}

impl KeyOptions {
    /// A key of the default workspace that may do everything.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            scopes: vec![KeyScope::All],
            workspace: "default".to_owned(),
            environment: "production".to_owned(),
            expires_us: None,
        }
    }
}

/// Stores the digest of a key.
pub(crate) async fn store_key(
    store: &Store,
    secret: &ServerSecret,
    org: &OrgId,
    key: &ApiKey,
    options: &KeyOptions,
) -> Result<KeyId, StoreError> {
    let key_id = KeyId::random();
    let scopes: Vec<&str> = options.scopes.iter().map(|scope| scope.as_str()).collect();
    let new_key = NewKey {
        key_id: key_id.clone(),
        digest: secret.digest(key.reveal()),
        shown_prefix: key.shown_prefix().to_owned(),
        name: options.name.clone(),
        workspace_id: options.workspace.clone(),
        environment: options.environment.clone(),
        scopes: scopes.join(" "),
        expires_us: options.expires_us,
    };
    store.control().insert_key(org, &new_key, store.clock().now_us()).await?;
    Ok(key_id)
}

fn hash_password(password: &str) -> Result<String, String> {
    let mut salt = [0u8; 16];
    getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|error| error.to_string())
}

fn random_password() -> String {
    let mut bytes = [0u8; 15];
    // Without randomness the hash's salt fails right after, with an error.
    let _ = getrandom::fill(&mut bytes);
    data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
}

fn hex_of(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
