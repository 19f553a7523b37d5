//! `agentlens key`: API keys.

use serde_json::json;

use agentlens_domain::ids::{KeyId, OrgId, WorkspaceId};
use agentlens_domain::keys::{ApiKey, KeyKind, KeyScope};
use agentlens_domain::time::{DAY_US, HOUR_US, format_rfc3339};
use agentlens_store::StoreError;

use crate::boot::{KeyOptions, open_secret, open_store, store_key};
use crate::clock;
use crate::config::{KeyCommand, StoreOptions};
use crate::output;

/// Runs a command on keys.
pub(crate) async fn run(command: KeyCommand) -> Result<(), String> {
    match command {
        KeyCommand::Generate { json } => {
            let key = ApiKey::generate(KeyKind::Live);
            if json {
                output::json(&json!({ "api_key": key.reveal() }))
            } else {
                output::line(key.reveal())
            }
            Ok(())
        }
        KeyCommand::Create { org, scope, expires_in, name, workspace, environment, store, json } => {
            let now_us = clock::open()?.now_us();
            let expires_us =
                expires_in.as_deref().map(|text| read_duration(text).map(|us| now_us + us)).transpose()?;
            let workspace = WorkspaceId::parse(&workspace).map_err(|error| error.to_string())?;
            if !["production", "staging", "development"].contains(&environment.as_str()) {
                return Err("--environment must be production, staging or development".to_owned());
            }
            let options = KeyOptions {
                name,
                scopes: read_scopes(&scope)?,
                workspace: workspace.to_string(),
                environment,
                expires_us,
            };
            create(&org, &options, &store, json).await
        }
        KeyCommand::List { org, store, json } => list(&org, &store, json).await,
        KeyCommand::Revoke { key_id, org, store, json } => {
            let org = read_org(&org)?;
            let key = KeyId::parse(&key_id).map_err(|error| error.to_string())?;
            let store = open_store(&store).await?;
            let revoked = store.control().revoke_key(&org, &key, store.clock().now_us()).await;
            revoked.map_err(|error| match error {
                StoreError::NotFound => format!("org {org} has no active key {key}"),
                other => other.to_string(),
            })?;
            if json {
                output::json(&json!({ "key_id": key.as_str(), "revoked": true }))
            } else {
                output::line(&format!("{key} is revoked"))
            }
            Ok(())
        }
    }
}

async fn create(
    org: &str,
    options: &KeyOptions,
    store_options: &StoreOptions,
    json: bool,
) -> Result<(), String> {
    let org = read_org(org)?;
    let store = open_store(store_options).await?;
    let secret = open_secret(store_options, &store).await?;
    let kind = if options.environment == "production" { KeyKind::Live } else { KeyKind::Test };
    let key = ApiKey::generate(kind);
    let key_id = store_key(&store, &secret, &org, &key, options).await.map_err(|error| match error {
        StoreError::NotFound => format!("there is no org {org}"),
        other => other.to_string(),
    })?;
    if json {
        output::json(
            &json!({ "key_id": key_id.as_str(), "api_key": key.reveal(), "org_id": org.as_str(), "expires_at": options.expires_us.map(format_rfc3339) }),
        );
    } else {
        output::line(&format!("Key       {key_id}\nAPI key   {}\nThe key is shown this once.", key.reveal()));
    }
    Ok(())
}

async fn list(org: &str, store_options: &StoreOptions, json: bool) -> Result<(), String> {
    let org = read_org(org)?;
    let keys = open_store(store_options)
        .await?
        .control()
        .list_keys(&org)
        .await
        .map_err(|error| error.to_string())?;
    if !json {
        for key in keys {
            let state = if key.revoked_us.is_some() { "revoked" } else { "active" };
            output::line(&format!(
                "{}\t{}...\t{}\t{}\t{}\t{}",
                key.key_id, key.shown_prefix, state, key.environment, key.scopes, key.name
            ));
        }
        return Ok(());
    }
    let all: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "key_id": key.key_id, "prefix": key.shown_prefix, "name": key.name, "workspace_id": key.workspace_id,
                "environment": key.environment, "scopes": key.scopes.split(' ').collect::<Vec<_>>(),
                "created_at": format_rfc3339(key.created_us), "expires_at": key.expires_us.map(format_rfc3339),
                "revoked_at": key.revoked_us.map(format_rfc3339), "last_used_at": key.last_used_us.map(format_rfc3339),
            })
        })
        .collect();
    output::json(&json!({ "keys": all }));
    Ok(())
}

fn read_org(text: &str) -> Result<OrgId, String> {
    OrgId::parse(text).map_err(|error| error.to_string())
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
    let unit_us = match text.chars().last() {
        Some('m') => HOUR_US / 60,
        Some('h') => HOUR_US,
        Some('d') => DAY_US,
        _ => return Err(fault()),
    };
    let count: i64 = text[..text.len() - 1].parse().map_err(|_| fault())?;
    count.checked_mul(unit_us).filter(|us| (1..=3650 * DAY_US).contains(us)).ok_or_else(fault)
}
