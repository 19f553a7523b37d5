#!/usr/bin/env bash
# Makes the corpus again: runs each family's driver against the stub and keeps what it exports.
#
#   tests/otel/capture.sh [FAMILY...]           all of them without an argument
#
# It needs python3, node and the package indexes they install from; nothing of AgentLens runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/otel/environment.sh
source tests/otel/environment.sh

stub_port=${STUB_PORT:-18080}
sink_port=${SINK_PORT:-18081}
families=("$@")
if ((${#families[@]} == 0)); then families=("${otel_families[@]}"); fi

work=$(mktemp -d)
processes=()
stop() { for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; wait "$process" 2>/dev/null || true; done; processes=(); }
trap 'stop; rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1

capture() {
    local family=$1 output=tests/otel/corpus/$1 folder=$work/$1
    echo "capturing $family" >&2
    otel_install "$family"
    mkdir -p "$folder"
    python3 tests/otel/stub/server.py --port "$stub_port" --log "$folder/truth.jsonl" &
    processes+=($!)
    python3 tests/otel/stub/sink.py --port "$sink_port" --directory "$folder/sink" &
    processes+=($!)
    otel_await "$stub_port"
    otel_await "$sink_port"
    if ! STUB_URL="http://127.0.0.1:$stub_port" AGENTLENS_OTLP_URL="http://127.0.0.1:$sink_port" \
        AGENTLENS_API_KEY=al_test_capture SESSION_ID="session-$family" USER_ID="user-$family" \
        otel_drive "$family" >"$folder/output" 2>&1; then
        cat "$folder/output" >&2
        echo "the driver of $family failed" >&2
        return 1
    fi
    stop

    rm -rf "$output"
    mkdir -p "$output"
    cp "$folder/truth.jsonl" "$output/truth.jsonl"
    local libraries=() library
    while IFS= read -r library; do libraries+=(--library "$library"); done < <(otel_libraries "$family")
    python3 tests/otel/pack.py "$family" --sink "$folder/sink" --output "$output" "${libraries[@]}"
    python3 tests/otel/expected.py "$family" --truth "$output/truth.jsonl" \
        --session "session-$family" --user "user-$family" >"$folder/expected.json"
    mv "$folder/expected.json" "$output/expected.json"
    local python=python3
    if [[ -x .tools/otel/$(otel_environment "$family")/bin/python ]]; then
        python=.tools/otel/$(otel_environment "$family")/bin/python
    fi
    "$python" tests/otel/check.py "$output"
}

failed=0
for family in "${families[@]}"; do
    # Not `capture || ...`: that would switch errexit off inside it.
    set +e
    (set -e; trap stop EXIT; capture "$family")
    status=$?
    set -e
    if ((status != 0)); then
        echo "$family: no good capture" >&2
        failed=1
    fi
done
exit "$failed"
