//! `agentlens secret`: the keys by which the server signs.

use serde_json::json;

use crate::boot::open_store;
use crate::config::{Common, SecretCommand};
use crate::output;

/// Runs a command on the secrets of the server.
pub(crate) async fn run(command: SecretCommand, common: &Common) -> Result<(), String> {
    let SecretCommand::Rotate = command;
    let store = open_store(&common.store).await?;
    let key_id = store.control().rotate_signing_key().await.map_err(|error| error.to_string())?;
    if common.json {
        output::json(&json!({ "key_id": key_id }));
    } else {
        output::line(&format!("Signing key {key_id}; earlier ones stay in /.well-known/jwks.json"));
    }
    Ok(())
}
