//! Documents that are generated must be what the program prints.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

fn assert_renewed(command: &str, file: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_agentlens")).arg(command).output().unwrap();
    assert!(
        output.status.success(),
        "agentlens {command} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed.as_bytes() == output.stdout,
        "{file} is not what the program prints; renew it: target/debug/agentlens {command} > {file}"
    );
}

#[test]
fn the_committed_description_of_the_api_is_the_served_one() {
    assert_renewed("openapi", "openapi.json");
}

#[test]
fn the_page_of_all_options_is_current() {
    assert_renewed("configuration-docs", "docs/configuration.md");
}

#[test]
fn the_page_of_all_event_types_is_current() {
    assert_renewed("event-docs", "docs/events.md");
}
