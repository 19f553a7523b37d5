//! `agentlens org`: orgs and their first keys.

use serde_json::json;

use agentlens_domain::ids::OrgId;
use agentlens_domain::keys::{ApiKey, KeyKind};
use agentlens_domain::time::format_rfc3339;

use crate::boot::{KeyOptions, open_secret, open_store, store_key};
use crate::config::OrgCommand;
use crate::output;

/// Runs a command on orgs.
pub(crate) async fn run(command: OrgCommand) -> Result<(), String> {
    match command {
        OrgCommand::Create { name, retention_days, store: options, json } => {
            if retention_days.is_some_and(|days| !(1..=3650).contains(&days)) {
                return Err("--retention-days must be from 1 to 3650".to_owned());
            }
            let store = open_store(&options).await?;
            let secret = open_secret(&options, &store).await?;
            let (org, key) = (OrgId::random(), ApiKey::generate(KeyKind::Live));
            let text = |error: agentlens_store::StoreError| error.to_string();
            store.control().insert_org(&org, &name, store.clock().now_us()).await.map_err(text)?;
            if retention_days.is_some() {
                store.control().set_retention(&org, retention_days).await.map_err(text)?;
            }
            let key_id = store_key(&store, &secret, &org, &key, &KeyOptions::named("first key"))
                .await
                .map_err(text)?;
            if json {
                output::json(
                    &json!({ "org_id": org.as_str(), "name": name, "key_id": key_id.as_str(), "api_key": key.reveal() }),
                );
            } else {
                output::line(&format!(
                    "Org       {org} ({name})\nAPI key   {}\nThe key is shown this once.",
                    key.reveal()
                ));
            }
        }
        OrgCommand::List { store: options, json } => {
            let orgs =
                open_store(&options).await?.control().list_orgs().await.map_err(|error| error.to_string())?;
            if json {
                let all: Vec<_> = orgs
                    .iter()
                    .map(|org| json!({ "org_id": org.org_id, "name": org.name, "retention_days": org.retention_days, "created_at": format_rfc3339(org.created_us) }))
                    .collect();
                output::json(&json!({ "orgs": all }));
            } else {
                for org in orgs {
                    output::line(&format!(
                        "{}\t{}\t{}",
                        org.org_id,
                        org.name,
                        format_rfc3339(org.created_us)
                    ));
                }
            }
        }
    }
    Ok(())
}
