#!/usr/bin/env bash
# The short form of the "nothing lost" run: a few kills at random moments, then every acknowledged event is counted.
# Its cloud form kills PostgreSQL and Redis too, so it starts its own with the binaries of the test services.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

form=$1
target=${CARGO_TARGET_DIR:-target}/debug
arguments=(--server "$target/agentlens" --form "$form" --kills 6)
if [[ $form == cloud ]]; then
    if [[ -z ${AGENTLENS_TEST_POSTGRES_BIN:-} || -z ${AGENTLENS_TEST_REDIS_BIN:-} ]]; then
        echo 'the services are not ours to kill: only the embedded form is run'
        exit 0
    fi
    arguments+=(--pg-bin "$AGENTLENS_TEST_POSTGRES_BIN" --redis-server "$AGENTLENS_TEST_REDIS_BIN" --appendfsync always)
    if [[ -n ${AGENTLENS_TEST_POSTGRES_USER:-} ]]; then
        arguments+=(--run-as "$AGENTLENS_TEST_POSTGRES_USER")
    fi
fi
exec "$target/agentlens-bench" crash "${arguments[@]}"
