//! Opening the store and the secret, and making what a fresh server needs: the default org, a first key, a login.

use std::path::Path;

use agentlens_domain::ids::{OrgId, UserId};
use agentlens_domain::keys::{ApiKey, KeyKind, KeyOptions, ServerSecret};
use agentlens_domain::passwords;
use agentlens_domain::permissions::Caller;
use agentlens_store::{DataDirectory, NewKey, NewPerson, Org, Store, StoreError};

use crate::clock;
use crate::config::StoreSettings;

/// Opens the store, making the embedded one where there is none. Only a server may: a command that did would answer for a
/// store that it has just invented.
pub(crate) async fn make_store(settings: &StoreSettings) -> Result<Store, String> {
    let clock = clock::open()?;
    let secret = read_secret(settings)?;
    let store = match &settings.database_url {
        None => Store::open_sqlite(&settings.data_dir, &secret).await,
        Some(url) => Store::open_postgres(url, settings.database_connections, &secret).await,
    };
    store.map(|store| store.with_clock(clock)).map_err(|error| match &settings.database_url {
        Some(url) => at("PostgreSQL", url, error),
        None => error.to_string(),
    })
}

/// An error of a service with the place that its URL names; of the URL nothing else is shown, for it may hold a password.
pub(crate) fn at(service: &str, url: &str, error: impl std::fmt::Display) -> String {
    match reqwest::Url::parse(url) {
        Ok(parsed) => {
            let host = parsed.host_str().filter(|host| !host.is_empty()).unwrap_or("the default host");
            let port = parsed.port().map_or_else(String::new, |port| format!(":{port}"));
            format!("{service} at {host}{port}: {error}")
        }
        Err(_) => format!("{service}: {error}"),
    }
}

/// Opens a store that is there.
pub(crate) async fn open_store(settings: &StoreSettings) -> Result<Store, String> {
    let directory = DataDirectory::new(&settings.data_dir);
    if settings.database_url.is_none() && !directory.holds_store() {
        return Err(format!(
            "there is no store in {}; give its directory with --data-dir or AGENTLENS_DATA_DIR (`agentlens serve` makes a new one)",
            directory.shown()
        ));
    }
    make_store(settings).await
}

/// Opens one org of a store that is there.
pub(crate) async fn open_org(settings: &StoreSettings, org: &str) -> Result<Org, String> {
    let store = open_store(settings).await?;
    let org = find_org(&store, org).await?;
    store.org(&org).await.map_err(|error| format!("org {org}: {error}"))
}

/// The org with this id. Where only an org with this name is found, the refusal names its id.
pub(crate) async fn find_org(store: &Store, text: &str) -> Result<OrgId, String> {
    let fault = |error: StoreError| error.to_string();
    let parsed = OrgId::parse(text);
    if let Ok(org) = &parsed
        && store.control().find_org(org).await.map_err(fault)?.is_some()
    {
        return Ok(org.clone());
    }
    let named = store.control().find_orgs_named(text).await.map_err(fault)?;
    Err(match (named.as_slice(), parsed) {
        ([org], _) => format!("--org takes an id: the org named {text} is {}", org.org_id),
        (_, Err(error)) => format!("--org: {error}; `agentlens org list` shows them"),
        _ => format!("there is no org {text}; `agentlens org list` shows them"),
    })
}

/// The server's secret: given, or kept in a file of the data directory that only its owner can read. The store itself refuses a
/// secret other than the one that it was made with.
pub(crate) fn read_secret(settings: &StoreSettings) -> Result<ServerSecret, String> {
    match &settings.secret {
        Some(secret) => Ok(secret.clone()),
        // A secret in a file of this machine would bind the whole database to it.
        None if settings.database_url.is_some() => {
            Err("with PostgreSQL the server's secret must be given: set AGENTLENS_SECRET_KEY (or AGENTLENS_SECRET_KEY_FILE) to 64 hexadecimal digits, the same on all nodes; `openssl rand -hex 32` makes a new one for a new database".to_owned())
        }
        None => {
            let is_new = !DataDirectory::new(&settings.data_dir).holds_store();
            secret_file(&settings.data_dir, is_new)
        }
    }
}

fn secret_file(directory: &Path, is_new: bool) -> Result<ServerSecret, String> {
    let path = directory.join("secret.key");
    let describe = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => ServerSecret::parse(&text)
            .ok_or_else(|| format!("{} does not hold 64 hexadecimal digits", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && is_new => {
            let secret = ServerSecret::generate();
            match write_private(&path, &secret.to_text()) {
                // Another process was faster; its secret counts.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    secret_file(directory, is_new)
                }
                Err(error) => Err(describe(error)),
                Ok(()) => Ok(secret),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(format!(
            "{} is missing, and without it no API key of this store is valid; restore it from a backup, or give AGENTLENS_SECRET_KEY",
            path.display()
        )),
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

/// Reads a key that the caller chose for the default org.
pub(crate) fn read_bootstrap_key(given: &str) -> Result<ApiKey, String> {
    ApiKey::parse(given).ok_or_else(|| {
        "AGENTLENS_BOOTSTRAP_API_KEY is not a well-formed key; `agentlens key generate` prints one".to_owned()
    })
}

/// What a fresh server shows, once.
#[derive(Debug, Default)]
pub(crate) struct FirstSteps {
    /// A key that was made.
    pub(crate) api_key: Option<ApiKey>,
    /// A login that was made: e-mail and password.
    pub(crate) login: Option<(String, String)>,
}

/// Makes the default org, and a first key and login where there are none. What is returned is lost unless it is printed, so
/// this is the last step of a start that can fail.
pub(crate) async fn first_steps(
    store: &Store,
    secret: &ServerSecret,
    bootstrap_key: Option<&ApiKey>,
) -> Result<FirstSteps, String> {
    let text = |error: StoreError| error.to_string();
    let (control, caller) = (store.control(), Caller::service("server", &OrgId::default_org()));
    control.signing_key().await.map_err(text)?;
    // Whoever deleted the default org does not want it back at the next start.
    if control.was_deleted(&caller.org).await.map_err(text)? {
        return Ok(FirstSteps::default());
    }
    control.ensure_org(&caller, "Default").await.map_err(text)?;
    if let Some(key) = bootstrap_key {
        let new_key = NewKey::of(secret, key, &KeyOptions::everything("bootstrap"));
        match control.insert_key(&caller, new_key, None).await {
            Ok(()) | Err(StoreError::Exists(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if control.is_started().await.map_err(text)? {
        return Ok(FirstSteps::default());
    }
    let key = bootstrap_key.is_none().then(|| ApiKey::generate(KeyKind::Live));
    let new_key = key.as_ref().map(|key| NewKey::of(secret, key, &KeyOptions::everything("first key")));
    let (email, password) = ("admin@localhost".to_owned(), passwords::random());
    let login = NewPerson {
        user_id: UserId::random(),
        email: email.clone(),
        email_key: email.clone(),
        name: "Administrator".to_owned(),
        password_hash: Some(passwords::hash(&password).map_err(|error| error.to_string())?),
        terms_version: None,
    };
    let made = control.first_start(&caller, new_key, login).await.map_err(text)?;
    Ok(FirstSteps {
        api_key: key.filter(|_| made.has_key),
        login: made.has_login.then_some((email, password)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_place_and_no_password() {
        assert_eq!(at("Redis", "redis://:secret@cache:6380/0", "refused"), "Redis at cache:6380: refused");
        assert_eq!(at("PostgreSQL", "postgres://u:secret@db/x", "refused"), "PostgreSQL at db: refused");
        assert_eq!(at("PostgreSQL", "postgres://", "refused"), "PostgreSQL at the default host: refused");
    }
}
