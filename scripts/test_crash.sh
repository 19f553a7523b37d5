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

# The user that runs PostgreSQL has to walk through this directory.
work=$(mktemp -d "${TMPDIR:-/tmp}/agentlens-crash.XXXXXX")
chmod 711 "$work"
bench=

clean_up() {
    local status=$? log
    trap '' INT TERM
    # What a run that was ended left behind: servers and services are in its group.
    if [[ -n $bench ]]; then
        kill -KILL -- "-$bench" 2>/dev/null || true
        wait "$bench" 2>/dev/null || true
    fi
    if ((status != 0)); then
        for log in "$work"/run/*.log; do
            if [[ ! -s $log ]]; then continue; fi
            printf '\n---- the end of %s\n' "${log##*/}" >&2
            tail -n 30 "$log" >&2
        done
    fi
    # The processes of a killed PostgreSQL notice a moment later.
    rm -rf "$work" 2>/dev/null || { sleep 1 && rm -rf "$work"; }
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

set -m
"$target/agentlens-bench" crash "${arguments[@]}" --dir "$work/run" &
bench=$!
set +m
wait "$bench"
