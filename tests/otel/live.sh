#!/usr/bin/env bash
# Runs real client libraries against a running AgentLens server and compares what it counted with the stub's log.
#
#   tests/otel/live.sh BASE_URL API_KEY STUB_PORT [FAMILY...]
#
# It starts the stub on STUB_PORT, drives each family with a session id of this run, and then reads the sessions back.
# Without a FAMILY: the three in Python, Langfuse, and Vercel where node is to be had.
set -euo pipefail
if (($# < 3)); then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
base_url=${1%/} api_key=$2 stub_port=$3
shift 3
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/otel/environment.sh
source tests/otel/environment.sh

families=("$@")
if ((${#families[@]} == 0)); then
    families=(openinference-openai otel-openai pydantic-ai langfuse)
    if command -v npm >/dev/null && command -v node >/dev/null; then
        families+=(vercel)
    else
        echo 'live: node and npm are missing, so Vercel is left out' >&2
    fi
fi
for family in "${families[@]}"; do otel_install "$family"; done

work=$(mktemp -d)
stub=
trap 'if [[ -n $stub ]]; then kill "$stub" 2>/dev/null || true; fi; rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1
python3 tests/otel/stub/server.py --port "$stub_port" --log "$work/truth.jsonl" &
stub=$!
otel_await "$stub_port"

run=$(date -u +%Y%m%d%H%M%S)-$$
for family in "${families[@]}"; do
    echo "live: $family" >&2
    # What stands before /v1/ tells the stub who calls.
    if ! STUB_URL="http://127.0.0.1:$stub_port/$family" AGENTLENS_OTLP_URL=$base_url AGENTLENS_API_KEY=$api_key \
        SESSION_ID="live-$run-$family" USER_ID="user-$run" otel_drive "$family" >"$work/output" 2>&1; then
        cat "$work/output" >&2
        echo "live: the driver of $family failed" >&2
        exit 1
    fi
done

AGENTLENS_API_KEY=$api_key python3 tests/otel/live_check.py "$base_url" "$work/truth.jsonl" "$run" "${families[@]}"
