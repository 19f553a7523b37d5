//! `agentlens dead-letters`: batches that could not be applied.

use std::sync::Arc;

use serde_json::json;

use agentlens_domain::ids::{BatchId, OrgId};
use agentlens_domain::time::format_rfc3339;
use agentlens_ingest::message;
use agentlens_store::Tenant;

use crate::boot::open_store;
use crate::config::{DeadLettersCommand, StoreOptions};
use crate::output;

/// Letters that are shown or replayed at a time.
const MAX_LETTERS: u32 = 1000;

/// Runs a command on dead letters.
pub(crate) async fn run(command: DeadLettersCommand) -> Result<(), String> {
    match command {
        DeadLettersCommand::List { org, store, json } => {
            let letters = open(&org, &store)
                .await?
                .list_dead_letters(MAX_LETTERS)
                .await
                .map_err(|error| error.to_string())?;
            if json {
                let all: Vec<_> = letters
                    .iter()
                    .map(|letter| json!({ "batch_id": letter.batch_id, "key_id": letter.key_id, "failed_at": format_rfc3339(letter.failed_us), "events": letter.event_count, "reason": letter.reason }))
                    .collect();
                output::json(&json!({ "dead_letters": all }));
            } else {
                for letter in letters {
                    output::line(&format!(
                        "{}\t{}\t{} events\t{}",
                        letter.batch_id,
                        format_rfc3339(letter.failed_us),
                        letter.event_count,
                        letter.reason
                    ));
                }
            }
            Ok(())
        }
        DeadLettersCommand::Replay { batch_id, org, store, json } => {
            let tenant = open(&org, &store).await?;
            let batches = match batch_id {
                Some(id) => vec![id],
                None => {
                    let letters =
                        tenant.list_dead_letters(MAX_LETTERS).await.map_err(|error| error.to_string())?;
                    letters.into_iter().map(|letter| letter.batch_id).collect()
                }
            };
            let (mut replayed, mut failed) = (0, Vec::new());
            for id in batches {
                match replay(&tenant, &id).await {
                    Ok(()) => replayed += 1,
                    Err(reason) => failed.push(json!({ "batch_id": id, "reason": reason })),
                }
            }
            if json {
                output::json(&json!({ "replayed": replayed, "failed": failed }));
            } else {
                output::line(&format!("{replayed} batches replayed, {} failed", failed.len()));
            }
            if failed.is_empty() { Ok(()) } else { Err(format!("{} batches failed again", failed.len())) }
        }
    }
}

async fn open(org: &str, options: &StoreOptions) -> Result<Tenant, String> {
    let org = OrgId::parse(org).map_err(|error| error.to_string())?;
    open_store(options).await?.tenant(&org).await.map_err(|error| format!("org {org}: {error}"))
}

async fn replay(tenant: &Tenant, id: &str) -> Result<(), String> {
    let id = BatchId::parse(id).map_err(|error| error.to_string())?;
    let bytes = tenant.dead_letter_message(&id).await.map_err(|error| error.to_string())?;
    let batch = message::decode(&bytes).map_err(|error| error.to_string())?;
    // Applying is idempotent, so a failure between the two steps harms nothing.
    tenant.apply(Arc::new(vec![batch]), tenant.clock().now_us()).await.map_err(|error| error.to_string())?;
    tenant.delete_dead_letter(&id).await.map_err(|error| error.to_string())
}
