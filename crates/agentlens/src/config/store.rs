//! Where data is: the embedded store's directory, PostgreSQL, Redis and the server's secret.

use std::path::PathBuf;

use clap::Args;

use agentlens_domain::keys::ServerSecret;

use super::secrets::resolve;

/// Where data is; the same for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where data is")]
pub(crate) struct StoreOptions {
    /// Directory of the embedded store, and of its secret.
    #[arg(long, env = "AGENTLENS_DATA_DIR", default_value = "data", global = true)]
    pub(crate) data_dir: PathBuf,
    /// PostgreSQL under the application's role, which owns nothing; without it the embedded store is used.
    #[arg(long, env = "AGENTLENS_DATABASE_URL", hide_env_values = true, global = true)]
    database_url: Option<String>,
    /// A file that holds the URL of PostgreSQL.
    #[arg(long, env = "AGENTLENS_DATABASE_URL_FILE", global = true)]
    database_url_file: Option<PathBuf>,
    /// PostgreSQL under the owner's role; used only to create schema, policies and grants.
    #[arg(long, env = "AGENTLENS_DATABASE_OWNER_URL", hide_env_values = true, global = true)]
    database_owner_url: Option<String>,
    /// A file that holds the URL of PostgreSQL under the owner's role.
    #[arg(long, env = "AGENTLENS_DATABASE_OWNER_URL_FILE", global = true)]
    database_owner_url_file: Option<PathBuf>,
    /// Maximum number of connections to PostgreSQL.
    #[arg(long, env = "AGENTLENS_DATABASE_CONNECTIONS", default_value_t = 16, global = true)]
    database_connections: usize,
    /// Redis for the ingest queue; without it the queue is in process.
    #[arg(long, env = "AGENTLENS_REDIS_URL", hide_env_values = true, global = true)]
    redis_url: Option<String>,
    /// A file that holds the URL of Redis.
    #[arg(long, env = "AGENTLENS_REDIS_URL_FILE", global = true)]
    redis_url_file: Option<PathBuf>,
    /// Prefix of all keys in Redis.
    #[arg(long, env = "AGENTLENS_REDIS_PREFIX", default_value = "agentlens", global = true)]
    redis_prefix: String,
    /// The server's secret, 64 hexadecimal digits: it digests API keys and signs reports. The embedded store makes its own in
    /// `secret.key` in the data directory; with PostgreSQL it must be given, the same on all nodes.
    #[arg(long, env = "AGENTLENS_SECRET_KEY", hide_env_values = true, global = true)]
    secret_key: Option<String>,
    /// A file that holds the server's secret.
    #[arg(long, env = "AGENTLENS_SECRET_KEY_FILE", global = true)]
    secret_key_file: Option<PathBuf>,
}

/// Where data is, read and checked.
#[derive(Debug, Clone)]
pub(crate) struct StoreSettings {
    /// Directory of the embedded store.
    pub(crate) data_dir: PathBuf,
    /// PostgreSQL under the application's role.
    pub(crate) database_url: Option<String>,
    /// PostgreSQL under the owner's role.
    pub(crate) database_owner_url: Option<String>,
    /// Maximum number of connections to PostgreSQL.
    pub(crate) database_connections: usize,
    /// Redis.
    pub(crate) redis_url: Option<String>,
    /// Prefix of all keys in Redis.
    pub(crate) redis_prefix: String,
    /// The server's secret, if it was given.
    pub(crate) secret: Option<ServerSecret>,
}

impl StoreOptions {
    /// Reads the files and checks what can be checked without opening anything.
    pub(crate) fn resolve(self) -> Result<StoreSettings, String> {
        let given = |name: &str, value: &Option<String>, file: &Option<PathBuf>| {
            resolve(name, value.as_deref(), file.as_deref())
        };
        let database_url = given("AGENTLENS_DATABASE_URL", &self.database_url, &self.database_url_file)?;
        let database_owner_url =
            given("AGENTLENS_DATABASE_OWNER_URL", &self.database_owner_url, &self.database_owner_url_file)?;
        let redis_url = given("AGENTLENS_REDIS_URL", &self.redis_url, &self.redis_url_file)?;
        check_scheme("AGENTLENS_DATABASE_URL", database_url.as_deref(), &["postgres://", "postgresql://"])?;
        check_scheme(
            "AGENTLENS_DATABASE_OWNER_URL",
            database_owner_url.as_deref(),
            &["postgres://", "postgresql://"],
        )?;
        check_scheme("AGENTLENS_REDIS_URL", redis_url.as_deref(), &["redis://", "rediss://"])?;
        let secret = given("AGENTLENS_SECRET_KEY", &self.secret_key, &self.secret_key_file)?;
        let secret = secret.map(|text| {
            ServerSecret::parse(&text).ok_or(
                "AGENTLENS_SECRET_KEY must be 64 hexadecimal digits; `openssl rand -hex 32` prints them",
            )
        });
        Ok(StoreSettings {
            data_dir: self.data_dir,
            database_url,
            database_owner_url,
            database_connections: self.database_connections,
            redis_url,
            redis_prefix: self.redis_prefix,
            secret: secret.transpose()?,
        })
    }
}

/// A URL may hold a password, so the message shows none of it.
fn check_scheme(name: &str, url: Option<&str>, schemes: &[&str]) -> Result<(), String> {
    match url {
        Some(url) if !schemes.iter().any(|scheme| url.starts_with(scheme)) => {
            let place = if schemes.contains(&"redis://") {
                "redis://HOST:6379/0"
            } else {
                "postgres://USER:PASSWORD@HOST:5432/DATABASE"
            };
            Err(format!("{name} must begin with {}, such as {place}", schemes.join(" or ")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_without_a_scheme_are_refused_by_name_and_not_shown() {
        for url in ["127.0.0.1:6379", "http://h", "secret@h"] {
            let error =
                check_scheme("AGENTLENS_REDIS_URL", Some(url), &["redis://", "rediss://"]).unwrap_err();
            assert!(error.contains("AGENTLENS_REDIS_URL must begin with redis:// or rediss://"), "{error}");
            assert!(!error.contains(url), "{error}");
        }
        assert_eq!(check_scheme("X", Some("rediss://h"), &["redis://", "rediss://"]), Ok(()));
        assert_eq!(check_scheme("X", None, &["redis://"]), Ok(()));
    }
}
