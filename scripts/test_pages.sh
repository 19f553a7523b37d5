#!/usr/bin/env bash
# Goes through the server's pages for people (tests/pages) in a real browser, on a server of its own. Arguments go to node.
# Needs Node 20 or newer with npm; Chromium comes from the package manager if the machine has none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/services/common.sh
source scripts/services/common.sh
forget_settings

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    services_die 'Node is missing: install node 20 or newer, with npm'
fi
browser() { command -v chromium || command -v chromium-browser || command -v google-chrome || true; }
if [[ -z $(browser) ]] && ! apt_install chromium; then
    services_die 'Chromium is missing: install it so that chromium is on PATH (Debian: apt-get install chromium)'
fi
AGENTLENS_TEST_BROWSER=$(browser)
AGENTLENS_BINARY=${AGENTLENS_BINARY:-${CARGO_TARGET_DIR:-target}/debug/agentlens}
if [[ ! -x $AGENTLENS_BINARY ]]; then
    echo "$AGENTLENS_BINARY is missing: cargo build --workspace --all-targets" >&2
    exit 1
fi
AGENTLENS_BINARY=$(realpath "$AGENTLENS_BINARY")
export AGENTLENS_BINARY AGENTLENS_TEST_BROWSER

source=tests/pages target=.tools/pages
mkdir -p "$target"
if ! cmp -s "$source/package-lock.json" "$target/installed.json"; then
    rm -rf "$target/node_modules"
    cp "$source/package.json" "$source/package-lock.json" "$target/"
    (cd "$target" && npm ci --silent --no-audit --no-fund)
    # Written last, so that an interrupted installation is not taken for a finished one.
    cp "$source/package-lock.json" "$target/installed.json"
fi
cp "$source"/*.mjs "$target/"
cd "$target"
exec node "$@" --test --test-timeout=180000 pages.test.mjs
