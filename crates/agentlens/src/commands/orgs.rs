//! `agentlens org`: orgs and their first keys.

use serde_json::json;

use agentlens_domain::ids::OrgId;
use agentlens_domain::keys::{ApiKey, KeyKind, KeyOptions};
use agentlens_domain::permissions::Caller;
use agentlens_domain::signing::digest;
use agentlens_domain::time::format_rfc3339;
use agentlens_store::{DeletionRow, NewKey, NewOrg};

use crate::boot::{find_org, open_store, read_secret};
use crate::config::{Common, OrgCommand};
use crate::output;

/// Bytes of a name, at most.
pub(super) const MAX_NAME_BYTES: usize = 200;
/// Days for which an org may keep its events.
const RETENTION_DAYS: std::ops::RangeInclusive<i32> = 1..=3650;

/// Runs a command on orgs.
pub(crate) async fn run(command: OrgCommand, common: &Common) -> Result<(), String> {
    match command {
        OrgCommand::Create { name, retention_days } => create(&name, retention_days, common).await,
        OrgCommand::List => list(common).await,
        OrgCommand::Suspend { org } => set_suspended(&org, true, common).await,
        OrgCommand::Resume { org } => set_suspended(&org, false, common).await,
        OrgCommand::Receipts => receipts(common).await,
    }
}

async fn create(name: &str, retention_days: Option<i32>, common: &Common) -> Result<(), String> {
    let name = read_name("the org's name", name)?;
    if name.is_empty() {
        return Err("the org's name must not be empty".to_owned());
    }
    if retention_days.is_some_and(|days| !RETENTION_DAYS.contains(&days)) {
        return Err(format!(
            "--retention-days must be from {} to {}",
            RETENTION_DAYS.start(),
            RETENTION_DAYS.end()
        ));
    }
    let text = |error: agentlens_store::StoreError| error.to_string();
    let store = open_store(&common.store).await?;
    let secret = read_secret(&common.store)?;
    let namesakes: Vec<String> = store
        .control()
        .find_orgs_named(name)
        .await
        .map_err(text)?
        .into_iter()
        .map(|org| org.org_id)
        .collect();
    let caller = Caller::service("cli", &OrgId::random());
    let org = NewOrg { name: name.to_owned(), retention_days };
    let key = ApiKey::generate(KeyKind::Live);
    let new_key = NewKey::of(&secret, &key, &KeyOptions::everything("first key"));
    let key_id = new_key.key_id.clone();
    store.control().create_org(&caller, org, Some(new_key)).await.map_err(text)?;
    if common.json {
        output::json(
            &json!({ "org_id": caller.org, "name": name, "key_id": key_id, "api_key": key.reveal(), "namesakes": namesakes }),
        );
    } else {
        output::line(&format!(
            "Org       {} ({name})\nAPI key   {}\nThe key is shown this once.",
            caller.org,
            key.reveal()
        ));
    }
    if !namesakes.is_empty() {
        output::note(&format!("another org is named {name} too: {}", namesakes.join(", ")));
    }
    Ok(())
}

async fn list(common: &Common) -> Result<(), String> {
    let store = open_store(&common.store).await?;
    let orgs = store.control().list_orgs().await.map_err(|error| error.to_string())?;
    if common.json {
        let all: Vec<_> = orgs
            .iter()
            .map(|org| json!({ "org_id": org.org_id, "name": org.name, "retention_days": org.retention_days, "created_at": format_rfc3339(org.created_us) }))
            .collect();
        output::json(&json!({ "orgs": all }));
        return Ok(());
    }
    let mut table = output::Table::new(&["ORG", "NAME", "KEEPS EVENTS", "CREATED"]);
    for org in orgs {
        let kept = org
            .retention_days
            .map_or_else(|| "for ever".to_owned(), |days| output::count(i64::from(days), "day"));
        table.row([org.org_id, org.name, kept, format_rfc3339(org.created_us)]);
    }
    table.print();
    Ok(())
}

async fn set_suspended(org: &str, is_suspended: bool, common: &Common) -> Result<(), String> {
    let store = open_store(&common.store).await?;
    let org = find_org(&store, org).await?;
    let set = store.control().set_suspended(&Caller::service("cli", &org), is_suspended).await;
    set.map_err(|error| error.to_string())?;
    if common.json {
        output::json(&json!({ "org_id": org, "is_suspended": is_suspended }));
    } else {
        let state = if is_suspended { "suspended; its data are kept" } else { "no longer suspended" };
        output::line(&format!("{org} is {state}"));
    }
    Ok(())
}

async fn receipts(common: &Common) -> Result<(), String> {
    let store = open_store(&common.store).await?;
    let rows = store.control().list_deletions().await.map_err(|error| error.to_string())?;
    let state = |row: &DeletionRow| match (row.undone_us, row.purged_us, row.purging_us) {
        (Some(_), ..) => "undone",
        (_, Some(_), _) => "deleted",
        (_, _, Some(_)) => "purging",
        _ => "pending",
    };
    if common.json {
        let all: Vec<_> = rows
            .iter()
            .map(|row| {
                let receipt = row.receipt.as_deref();
                json!({
                    "receipt_id": row.receipt_id, "state": state(row), "requested_at": format_rfc3339(row.requested_us),
                    "undo_until": format_rfc3339(row.undo_until_us), "purged_at": row.purged_us.map(format_rfc3339),
                    "receipt": receipt.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok()),
                    "sha256": receipt.map(digest), "jws": row.jws,
                })
            })
            .collect();
        output::json(&json!({ "receipts": all }));
        return Ok(());
    }
    let mut table = output::Table::new(&["RECEIPT", "STATE", "REQUESTED", "DELETED", "SHA-256"]);
    for row in rows {
        let deleted = row.purged_us.map(format_rfc3339).unwrap_or_default();
        let sha256 = row.receipt.as_deref().map(digest).unwrap_or_default();
        table.row([
            row.receipt_id.clone(),
            state(&row).to_owned(),
            format_rfc3339(row.requested_us),
            deleted,
            sha256,
        ]);
    }
    table.print();
    Ok(())
}

/// A name for people: trimmed, not too long, on one line.
pub(super) fn read_name<'a>(what: &str, text: &'a str) -> Result<&'a str, String> {
    let name = text.trim();
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("{what} has {} bytes; the limit is {MAX_NAME_BYTES}", name.len()));
    }
    if name.chars().any(output::is_control) {
        return Err(format!("{what} must not contain line breaks or control characters"));
    }
    Ok(name)
}
