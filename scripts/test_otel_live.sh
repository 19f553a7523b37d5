#!/usr/bin/env bash
# Real OpenTelemetry client libraries, live against the server that `make run` starts: what it counted must equal the log of
# the stub that played the model's API, to the token. Arguments are families of tests/otel; the default is in live.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

work=$(mktemp -d)
server=
trap 'if [[ -n $server ]]; then kill -- "-$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi; rm -rf "$work"' EXIT

key=$("${CARGO_TARGET_DIR:-target}/debug/agentlens" key generate)
port=$(free_port)
set -m
AGENTLENS_DATA_DIR=$work/data AGENTLENS_LISTEN=127.0.0.1:$port AGENTLENS_BOOTSTRAP_API_KEY=$key \
    make run >"$work/server.log" 2>&1 &
server=$!
set +m

# The first `make run` compiles the release build.
for ((second = 0; second < 1500; second++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    if ! kill -0 "$server" 2>/dev/null || ((second == 1499)); then
        cat "$work/server.log" >&2
        echo '`make run` did not start a server' >&2
        exit 1
    fi
    sleep 1
done
tests/otel/live.sh "http://127.0.0.1:$port" "$key" "$(free_port)" "$@"
