//! `agentlens dead-letters`: batches that could not be applied.

use std::sync::Arc;

use serde_json::json;

use agentlens_domain::ids::BatchId;
use agentlens_domain::permissions::Caller;
use agentlens_domain::time::format_rfc3339;
use agentlens_ingest::message;
use agentlens_store::{DataDirectory, DirectoryLock, Org, StoreError};

use crate::boot::open_org;
use crate::config::{Common, DeadLettersCommand};
use crate::output;

/// Letters that are shown or replayed at a time.
const MAX_LETTERS: u32 = 1000;

/// Runs a command on dead letters.
pub(crate) async fn run(command: DeadLettersCommand, common: &Common) -> Result<(), String> {
    match command {
        DeadLettersCommand::List { org } => list(&org, common).await,
        DeadLettersCommand::Replay { batch_id, org } => replay_all(batch_id, &org, common).await,
    }
}

async fn list(org: &str, common: &Common) -> Result<(), String> {
    let org = open_org(&common.store, org).await?;
    let letters = org.dead_letters().list(MAX_LETTERS).await.map_err(|error| error.to_string())?;
    if common.json {
        let all: Vec<_> = letters
            .iter()
            .map(|letter| json!({ "batch_id": letter.batch_id, "key_id": letter.key_id, "failed_at": format_rfc3339(letter.failed_us), "events": letter.event_count, "reason": letter.reason }))
            .collect();
        output::json(&json!({ "dead_letters": all }));
        return Ok(());
    }
    let mut table = output::Table::new(&["BATCH", "FAILED", "EVENTS", "REASON"]);
    for letter in letters {
        let events = letter.event_count.to_string();
        table.row([letter.batch_id, format_rfc3339(letter.failed_us), events, letter.reason]);
    }
    table.print();
    Ok(())
}

async fn replay_all(batch_id: Option<String>, org: &str, common: &Common) -> Result<(), String> {
    let org = open_org(&common.store, org).await?;
    let batches = match batch_id {
        Some(id) => vec![id],
        None => {
            let letters = org.dead_letters().list(MAX_LETTERS).await.map_err(|error| error.to_string())?;
            letters.into_iter().map(|letter| letter.batch_id).collect()
        }
    };
    let mut lock = None;
    let (mut replayed, mut failed) = (0_usize, Vec::new());
    for id in batches {
        match replay(&org, &id, common, &mut lock).await {
            Ok(()) => replayed += 1,
            Err(reason) => failed.push((id, reason)),
        }
    }
    if common.json {
        let failed: Vec<_> =
            failed.iter().map(|(id, reason)| json!({ "batch_id": id, "reason": reason })).collect();
        output::json(&json!({ "replayed": replayed, "failed": failed }));
    } else {
        output::line(&format!("{} replayed, {} failed", output::count(replayed, "batch"), failed.len()));
        for (id, reason) in &failed {
            output::line(&format!("FAILED  {}: {}", output::plain(id), output::plain(reason)));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("{} failed", output::count(failed.len(), "batch"))) }
}

async fn replay(
    org: &Org,
    id: &str,
    common: &Common,
    lock: &mut Option<DirectoryLock>,
) -> Result<(), String> {
    let id = BatchId::parse(id).map_err(|error| error.to_string())?;
    let bytes = org.dead_letters().message(&id).await.map_err(|error| match error {
        StoreError::NotFound => "there is no such dead letter".to_owned(),
        other => other.to_string(),
    })?;
    // One process applies to the embedded store: a running server would not see what this one writes beside it.
    if common.store.database_url.is_none() && lock.is_none() {
        let directory = DataDirectory::new(&common.store.data_dir);
        *lock = Some(directory.lock().map_err(|error| error.to_string())?);
    }
    let batch = message::decode(&bytes).map_err(|error| error.to_string())?;
    // Applying is idempotent, so a failure between the two steps harms nothing.
    org.apply(Arc::new(vec![batch]), org.clock().now_us()).await.map_err(|error| error.to_string())?;
    let caller = Caller::service("cli", org.id());
    org.dead_letters().delete(&caller, "dead_letters.replay", &id).await.map_err(|error| error.to_string())
}
