//! `agentlens key`: API keys.

use serde_json::json;

use agentlens_domain::environments;
use agentlens_domain::ids::{KeyId, WorkspaceId};
use agentlens_domain::keys::{ApiKey, KeyKind, KeyOptions, KeyScope};
use agentlens_domain::permissions::Caller;
use agentlens_domain::time::{DAY_US, HOUR_US, format_rfc3339};
use agentlens_store::{KeyRow, NewKey, StoreError};

use super::orgs::read_name;
use crate::boot::{find_org, open_store, read_secret};
use crate::clock;
use crate::config::{Common, KeyCommand};
use crate::output;

/// The longest life that can be given to a key.
const MAX_EXPIRY_DAYS: i64 = 3650;

/// Runs a command on keys.
pub(crate) async fn run(command: KeyCommand, common: &Common) -> Result<(), String> {
    match command {
        KeyCommand::Generate => {
            let key = ApiKey::generate(KeyKind::Live);
            if common.json {
                output::json(&json!({ "api_key": key.reveal() }))
            } else {
                output::line(key.reveal())
            }
            Ok(())
        }
        KeyCommand::Create { org, scope, expires_in, name, workspace, environment, bind_environment } => {
            let now_us = clock::open()?.now_us();
            let expires_us =
                expires_in.as_deref().map(|text| read_duration(text).map(|us| now_us + us)).transpose()?;
            let workspace =
                WorkspaceId::parse(&workspace).map_err(|error| format!("--workspace: {error}"))?;
            let environment = environments::parse(&environment)
                .map_err(|error| format!("--environment {error}"))?
                .ok_or_else(|| "--environment must not be empty".to_owned())?;
            let options = KeyOptions {
                name: read_name("--name", &name)?.to_owned(),
                scopes: read_scopes(&scope)?,
                workspace: workspace.to_string(),
                environment: environment.to_owned(),
                is_environment_bound: bind_environment,
                expires_us,
                rate_per_minute: None,
                allowed_networks: Vec::new(),
            };
            create(&org, &options, common).await
        }
        KeyCommand::List { org } => list(&org, common).await,
        KeyCommand::Revoke { key_id, org } => revoke(&org, &key_id, common).await,
    }
}

async fn create(org: &str, options: &KeyOptions, common: &Common) -> Result<(), String> {
    let store = open_store(&common.store).await?;
    let org = find_org(&store, org).await?;
    let secret = read_secret(&common.store)?;
    let kind = if options.environment == "production" { KeyKind::Live } else { KeyKind::Test };
    let key = ApiKey::generate(kind);
    let new_key = NewKey::of(&secret, &key, options);
    let key_id = new_key.key_id.clone();
    let stored = store.control().insert_key(&Caller::service("cli", &org), new_key, None).await;
    stored.map_err(explain)?;
    if common.json {
        output::json(
            &json!({ "key_id": key_id, "api_key": key.reveal(), "org_id": org, "expires_at": options.expires_us.map(format_rfc3339) }),
        );
    } else {
        output::line(&format!(
            "Key       {}\nAPI key   {}\nThe key is shown this once.",
            key_id,
            key.reveal()
        ));
    }
    Ok(())
}

fn explain(error: StoreError) -> String {
    match error {
        StoreError::NoWorkspace(id) => format!(
            "--workspace: the org has no workspace {id}, or it is archived; `agentlens workspace create` makes one"
        ),
        other => other.to_string(),
    }
}

async fn list(org: &str, common: &Common) -> Result<(), String> {
    let store = open_store(&common.store).await?;
    let org = find_org(&store, org).await?;
    let keys = store.control().list_keys(&org).await.map_err(|error| error.to_string())?;
    if common.json {
        let all: Vec<_> = keys.iter().map(as_json).collect();
        output::json(&json!({ "keys": all }));
        return Ok(());
    }
    let now_us = store.clock().now_us();
    let mut table = output::Table::new(&[
        "KEY",
        "BEGINS WITH",
        "STATE",
        "ENVIRONMENT",
        "SCOPES",
        "EXPIRES",
        "LAST USED",
        "NAME",
    ]);
    for key in keys {
        let state = match (key.revoked_us, key.expires_us) {
            (Some(_), _) => "revoked",
            (None, Some(expires_us)) if expires_us <= now_us => "expired",
            _ => "active",
        };
        let instant = |us: Option<i64>| us.map_or_else(|| "never".to_owned(), format_rfc3339);
        table.row([
            key.key_id,
            format!("{}...", key.shown_prefix),
            state.to_owned(),
            if key.is_environment_bound { format!("{} (bound)", key.environment) } else { key.environment },
            key.scopes,
            instant(key.expires_us),
            instant(key.last_used_us),
            key.name,
        ]);
    }
    table.print();
    Ok(())
}

fn as_json(key: &KeyRow) -> serde_json::Value {
    json!({
        "key_id": key.key_id, "prefix": key.shown_prefix, "name": key.name, "workspace_id": key.workspace_id,
        "environment": key.environment, "environment_bound": key.is_environment_bound,
        "scopes": key.scopes.split(' ').collect::<Vec<_>>(),
        "created_at": format_rfc3339(key.created_us), "expires_at": key.expires_us.map(format_rfc3339),
        "revoked_at": key.revoked_us.map(format_rfc3339), "last_used_at": key.last_used_us.map(format_rfc3339),
    })
}

async fn revoke(org: &str, key_id: &str, common: &Common) -> Result<(), String> {
    let key = KeyId::parse(key_id).map_err(|error| error.to_string())?;
    let store = open_store(&common.store).await?;
    let org = find_org(&store, org).await?;
    let revoked = store.control().revoke_key(&Caller::service("cli", &org), &key).await;
    revoked.map_err(|error| match error {
        StoreError::NotFound => format!("org {org} has no active key {key}"),
        other => other.to_string(),
    })?;
    if common.json {
        output::json(&json!({ "key_id": key, "revoked": true }))
    } else {
        output::line(&format!("{key} is revoked"))
    }
    Ok(())
}

fn read_scopes(names: &[String]) -> Result<Vec<KeyScope>, String> {
    if names.is_empty() {
        return Ok(vec![KeyScope::All]);
    }
    let known: Vec<&str> = KeyScope::EVERY.iter().map(|scope| scope.as_str()).collect();
    names
        .iter()
        .flat_map(|name| name.split(','))
        .map(|name| {
            KeyScope::parse(name)
                .ok_or_else(|| format!("--scope `{name}` is not one of {}", known.join(", ")))
        })
        .collect()
}

fn read_duration(text: &str) -> Result<i64, String> {
    let fault = || format!("--expires-in `{text}` must be a number and m, h or d, such as 12h or 30d");
    let out_of_range = || format!("--expires-in `{text}` must be from 1m to {MAX_EXPIRY_DAYS}d");
    let unit_us = match text.chars().last() {
        Some('m') => HOUR_US / 60,
        Some('h') => HOUR_US,
        Some('d') => DAY_US,
        _ => return Err(fault()),
    };
    let number = &text[..text.len() - 1];
    let digits = number.strip_prefix('-').unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fault());
    }
    // A number of so many digits that it can't be read is out of range too.
    let us = number.parse::<i64>().ok().and_then(|count| count.checked_mul(unit_us));
    us.filter(|us| (1..=MAX_EXPIRY_DAYS * DAY_US).contains(us)).ok_or_else(out_of_range)
}
