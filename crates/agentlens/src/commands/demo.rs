//! `agentlens demo`: realistic sessions, sent to a running server.

use crate::config::DemoOptions;

/// Sends the sessions.
pub(crate) async fn run(options: DemoOptions) -> Result<(), String> {
    let _ = options;
    Err("being written".to_owned())
}
