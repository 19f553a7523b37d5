//! `agentlens migrate`: schema, policies and grants in PostgreSQL, under the owner's role.

use serde_json::json;

use agentlens_store::Store;

use crate::boot::at;
use crate::config::Common;
use crate::output;

/// Runs the steps that are missing.
pub(crate) async fn run(common: &Common) -> Result<(), String> {
    let owner_url = common
        .store
        .database_owner_url
        .as_deref()
        .ok_or("migrate needs --database-owner-url (the embedded store migrates by itself)")?;
    let app_url = common.store.database_url.as_deref();
    let steps = Store::migrate_postgres(owner_url, app_url).await;
    let steps = steps.map_err(|error| at("PostgreSQL", owner_url, error))?;
    if common.json {
        output::json(&json!({ "steps_run": steps, "granted": app_url.is_some() }));
    } else {
        output::line(&format!(
            "{} run; {}",
            output::count(steps, "step"),
            if app_url.is_some() {
                "the application's role has its grants"
            } else {
                "no grants: --database-url names the role that needs them"
            }
        ));
    }
    Ok(())
}
