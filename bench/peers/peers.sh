# Functions of bench/run.sh: measures other products with the spans that AgentLens gets. Expects $bench, $work,
# $records and $peer_spans.

peer_pid=

# peer_facts NAME: how it is asked whether it is ready, where its rows are, and what its endpoint wants.
peer_facts() {
    case $1 in
    phoenix)
        peer_product="Arize Phoenix" peer_package=arize-phoenix
        peer_ready=/readyz peer_rows=phoenix.db
        set --
        ;;
    mlflow)
        peer_product=MLflow peer_package=mlflow
        # 0 is the experiment that every installation has; the header is what its endpoint requires.
        peer_ready=/health peer_rows=mlflow.db
        set -- --header x-mlflow-experiment-id:0
        ;;
    *)
        echo "no such peer: $1" >&2
        exit 1
        ;;
    esac
    peer_arguments=$*
}

# descendants PID: the process and all below it.
descendants() {
    echo "$1"
    for child in $(ps -o pid= --ppid "$1"); do descendants "$child"; done
}

stop_peer() {
    [ -n "$peer_pid" ] || return 0
    members=$(descendants "$peer_pid")
    kill "$peer_pid" 2>/dev/null || true
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 "$peer_pid" 2>/dev/null || break
        sleep 1
    done
    # Only what this script started: a product's workers may outlive it.
    # shellcheck disable=SC2086
    kill -9 $members 2>/dev/null || true
    wait "$peer_pid" 2>/dev/null || true
    peer_pid=
}

# start_peer NAME: starts it, waits until it is ready, and notes how long that took and what memory it has then.
start_peer() {
    peer_facts "$1"
    peer_dir=$work/peer-$1
    peer_port=$("$peers/$1/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    peer_version=$("$peers/$1/bin/python" -c 'import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))' "$peer_package")
    mkdir "$peer_dir"
    began=$(date +%s%N)
    "bench/peers/$1.sh" "$peers/$1" "$peer_dir" "$peer_port" >"$work/$1.log" 2>&1 &
    peer_pid=$!
    until curl --silent --fail --max-time 5 --output /dev/null "http://127.0.0.1:$peer_port$peer_ready"; do
        kill -0 "$peer_pid" 2>/dev/null || { tail -20 "$work/$1.log" >&2; exit 1; }
        [ $(($(date +%s%N) - began)) -lt 600000000000 ] || { echo "$1 is not ready after 10 minutes" >&2; exit 1; }
        sleep 0.1
    done
    ready_s=$(awk "BEGIN { print ($(date +%s%N) - $began) / 1e9 }" | cut -c1-5)
    sleep 5
    idle_mib=$(resident_mib "$peer_pid")
}

# resident_mib PID: memory of the process and all below it, shared pages divided among those that share them.
resident_mib() {
    for pid in $(descendants "$1"); do cat "/proc/$pid/smaps_rollup" 2>/dev/null || true; done |
        awk '$1 == "Pss:" { kib += $2 } END { printf "%d\n", kib / 1024 }'
}

# measure_peer NAME
measure_peer() {
    start_peer "$1"
    # shellcheck disable=SC2086
    "$bench" otlp --url "http://127.0.0.1:$peer_port" --no-auth $peer_arguments --spans "$peer_spans" \
        --stored-in "$peer_dir/$peer_rows" --stored-table spans --disk "$peer_dir" --drain-seconds 3600 \
        --pid-tree "$peer_pid" --figure "ready_s=$ready_s" --figure "idle_mib=$idle_mib" \
        --label "otlp beside: $peer_product $peer_version" --json "$records/beside-$1.json"
    stop_peer
    rm -rf "$peer_dir"
}
