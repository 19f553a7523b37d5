#!/usr/bin/env bash
# Rust dependencies: none that nothing uses (cargo-machete, fetched where it is missing), and licences, advisories and sources
# (deny.toml) where cargo-deny is installed, which takes minutes to build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

machete=$(command -v cargo-machete || true)
if [[ -z $machete ]]; then
    machete=.tools/bin/cargo-machete
    [[ -x $machete ]] || cargo install --quiet --locked --root .tools cargo-machete
fi
"$machete" crates bench

if command -v cargo-deny >/dev/null; then
    cargo deny --workspace check
else
    echo 'licences and advisories: skipped, cargo-deny is not installed (cargo install --locked cargo-deny)'
fi
