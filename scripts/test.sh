#!/usr/bin/env bash
# Everything that must hold before a change is merged, in the order of what is quickest to know.
# Stops at the first step that fails. Needs Rust, Python, Node and a C compiler; the rest it gets for itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A progress bar is a mess in a log.
export CARGO_TERM_PROGRESS_WHEN=${CARGO_TERM_PROGRESS_WHEN:-never}

# shellcheck source=scripts/services/common.sh
source scripts/services/common.sh
forget_settings

# Nothing is printed after a step that passes: the last line of all is the test runner's own count.
step() {
    title=$1
    shift
    printf '\n==== %s (after %d s)\n' "$title" "$SECONDS"
    if ! "$@"; then
        printf '\n==== FAILED: %s\n' "$title"
        exit 1
    fi
}

step 'format' cargo fmt --all --check
step 'lints' cargo clippy --workspace --all-targets -- -D warnings
step 'file sizes' scripts/check_file_sizes.sh
step 'dependencies' scripts/check_dependencies.sh

printf '\n==== services\n'
# shellcheck source=scripts/services.sh
source scripts/services.sh

# All targets, as the tests need them: the server's binary is then the one that `cargo test` built.
step 'build' cargo build --workspace --all-targets
step 'Rust tests' cargo test --workspace
step 'nothing lost under SIGKILL, embedded' scripts/test_crash.sh embedded
step 'nothing lost under SIGKILL, cloud' scripts/test_crash.sh cloud
step 'OpenTelemetry clients, live' scripts/test_otel_live.sh
step 'pages for people, in a browser' scripts/test_pages.sh
step 'published Python SDK' scripts/test_sdk_python.sh
