#!/usr/bin/env bash
# Runs the OpenID provider of the tests (tests/oidc) until its standard input ends; it prints its issuer when it listens.
# Its packages are fetched once, into .tools/oidc. Needs Node 20 or newer with npm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo 'Node is missing: install node 20 or newer, with npm' >&2
    exit 1
fi

source=tests/oidc target=.tools/oidc
mkdir -p "$target"
{
    # Tests run beside each other; one of them installs.
    flock 9
    if ! cmp -s "$source/package-lock.json" "$target/installed.json"; then
        rm -rf "$target/node_modules"
        cp "$source/package.json" "$source/package-lock.json" "$target/"
        (cd "$target" && npm ci --silent --no-audit --no-fund) >&2
        # Written last, so that an interrupted installation is not taken for a finished one.
        cp "$source/package-lock.json" "$target/installed.json"
    fi
    cp "$source/provider.mjs" "$target/"
} 9>"$target/install.lock"
cd "$target"
exec node provider.mjs
