#!/usr/bin/env bash
# Licences, advisories and sources of the Rust dependencies (deny.toml), where the tool is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if command -v cargo-deny >/dev/null; then
    cargo deny --workspace check
else
    echo 'skipped: cargo-deny is not installed (cargo install --locked cargo-deny)'
fi
