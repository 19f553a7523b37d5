//! What `agentlens serve` prints when it is ready; secrets are in it at the first start only.

use std::net::SocketAddr;

use serde_json::json;

use agentlens_store::DataDirectory;

use crate::boot::FirstSteps;
use crate::config::{Common, ServeOptions};
use crate::output;

/// Prints the address, where data are and what a person needs to begin.
pub(crate) fn print(address: SocketAddr, options: &ServeOptions, common: &Common, steps: &FirstSteps) {
    let directory =
        common.store.database_url.is_none().then(|| DataDirectory::new(&common.store.data_dir).shown());
    if common.json {
        output::json(&json!({
            "url": format!("http://{address}"), "data_dir": directory, "role": options.role.as_str(),
            "api_key": steps.api_key.as_ref().map(|key| key.reveal()),
            "login": steps.login.as_ref().map(|(email, password)| json!({ "email": email, "password": password })),
        }));
        return;
    }
    output::line(&format!("\n  AgentLens is running at http://{address}\n"));
    output::line(&format!("  Data      {}", directory.as_deref().unwrap_or("in PostgreSQL")));
    if let Some((email, password)) = &steps.login {
        output::line(&format!("  Login     {email} / {password}"));
    }
    let program = program();
    match &steps.api_key {
        Some(key) => {
            let key = key.reveal();
            output::line(&format!("  API key   {key}"));
            let url = if address.ip().is_unspecified() {
                format!("http://127.0.0.1:{}", address.port())
            } else {
                format!("http://{address}")
            };
            output::line("\n  Keep both: they are shown this once. To see the product with data:\n");
            output::line(&format!("  {program} demo --url {url} --api-key {key}\n"));
        }
        None if options.role.takes_requests() => {
            let place = directory.map_or_else(String::new, |path| format!(" --data-dir {}", quoted(&path)));
            output::line(&format!("  Key lost? {program} key create{place}\n"));
        }
        None => {}
    }
}

/// The program as it was called, so that the line can be copied whether or not it is on the PATH.
fn program() -> String {
    std::env::args().next().map_or_else(|| "agentlens".to_owned(), |name| quoted(&name))
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@%".contains(character);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_safe_in_a_shell() {
        assert_eq!(quoted("/opt/a-b/agentlens"), "/opt/a-b/agentlens");
        assert_eq!(quoted("/my data/it's"), "'/my data/it'\\''s'");
    }
}
