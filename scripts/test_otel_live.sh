#!/usr/bin/env bash
# Real OpenTelemetry client libraries, live against the server that `make run` starts: what it counted must equal the log of
# the stub that played the model's API, to the token. Arguments are families of tests/otel; the default is in live.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/services/common.sh
source scripts/services/common.sh
forget_settings

# What `make run` builds: here it may take as long as it needs.
cargo build --profile quick -p agentlens

work=$(mktemp -d)
server=
trap 'if [[ -n $server ]]; then kill -- "-$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi; rm -rf "$work"' EXIT

key=$("${CARGO_TARGET_DIR:-target}/quick/agentlens" key generate)
: >"$work/server.log"
set -m
AGENTLENS_DATA_DIR=$work/data AGENTLENS_LISTEN=127.0.0.1:0 AGENTLENS_BOOTSTRAP_API_KEY=$key \
    make run >"$work/server.log" 2>&1 &
server=$!
set +m

base_url=
for ((second = 0; second < 120; second++)); do
    base_url=$(sed -n 's/^ *AgentLens is running at //p' "$work/server.log")
    if [[ -n $base_url ]] || ! kill -0 "$server" 2>/dev/null; then break; fi
    sleep 1
done
if [[ -z $base_url ]]; then
    cat "$work/server.log" >&2
    echo '`make run` did not start a server' >&2
    exit 1
fi
tests/otel/live.sh "$base_url" "$key" "$(free_port)" "$@"
