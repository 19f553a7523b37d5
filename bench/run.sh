#!/bin/sh
# Measures everything of the table in README.md and writes bench/results/.
#
#   bench/run.sh [embedded|cloud|all]
#   bench/run.sh otlp [--peers]
#
# `all` (the default) measures the cloud form too if PostgreSQL and redis-server are there. `otlp` measures
# OpenTelemetry on the embedded form, with `--peers` beside other products, and writes bench/results/<date>/otlp*.
# Settings, by environment variable:
#   PG_BIN          folder with initdb and postgres   (default: the newest one found)
#   REDIS_SERVER    redis-server                      (default: from PATH)
#   LOAD_SECONDS    length of each load               (60)
#   SEED_EVENTS     events for the reads              (10000000)
#   SEED_ORGS       orgs that share them              (40)
#   KILLS           kills of the crash run            (200)
#   APPENDFSYNC     Redis durability, always|everysec (everysec)
#   BENCH_DIR       folder for data, 40 GB free       (a temporary one)
#   RUN_AS          user of PostgreSQL if run as root (postgres or nobody)
#   OTLP_SPANS      spans of the compressed load      (600000)
#   TRACE_SPANS     spans of each trace that is read  (100000)
#   PEER_SPANS      spans for each product            (50000)
#   PEERS           products                          (phoenix mlflow)
#   PEERS_DIR       their environments                (.tools/peers)
#   RESULTS         where results go                  (bench/results)
set -eu

cd "$(dirname "$0")/.."
forms=${1:-all}
load_seconds=${LOAD_SECONDS:-60}
seed_events=${SEED_EVENTS:-10000000}
seed_orgs=${SEED_ORGS:-40}
kills=${KILLS:-200}
appendfsync=${APPENDFSYNC:-everysec}
redis_server=${REDIS_SERVER:-$(command -v redis-server || true)}
otlp_spans=${OTLP_SPANS:-600000}
trace_spans=${TRACE_SPANS:-100000}
peer_spans=${PEER_SPANS:-50000}
pg_bin=${PG_BIN:-}
if [ -z "$pg_bin" ]; then
    for folder in /usr/lib/postgresql/*/bin /usr/local/pgsql/bin /usr/pgsql-*/bin; do
        if [ -x "$folder/initdb" ]; then pg_bin=$folder; fi
    done
fi

case $forms in
embedded | cloud | all | otlp) ;;
*)
    echo "no such form: $forms" >&2
    exit 1
    ;;
esac
if [ "$forms:${2:-}" = otlp:--peers ]; then
    # shellcheck disable=SC2086
    bench/peers/install.sh ${PEERS:-phoenix mlflow}
    peers=$(cd "${PEERS_DIR:-.tools/peers}" && pwd)
    . bench/peers/peers.sh
fi

cargo build --release --locked -p agentlens -p agentlens-bench
target=${CARGO_TARGET_DIR:-target}/release
bench=$target/agentlens-bench
server=$target/agentlens
work=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/agentlens-bench.XXXXXX")
chmod 711 "$work"
stack_pid=

cleanup() {
    if [ -n "${peers:-}" ]; then stop_peer || true; fi
    stop_stack || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# start_stack NAME FORM [ARGUMENT...]: starts a stack in its own folder and reads where it is.
start_stack() {
    name=$1
    form=$2
    shift 2
    state=$work/$name.env
    set -- --server "$server" --form "$form" --dir "$work/$name" --state "$state" \
        --appendfsync "$appendfsync" "$@"
    if [ "$form" = cloud ]; then
        set -- "$@" --pg-bin "$pg_bin" --redis-server "$redis_server"
        if [ -n "${RUN_AS:-}" ]; then set -- "$@" --run-as "$RUN_AS"; fi
    fi
    "$bench" stack "$@" &
    stack_pid=$!
    while [ ! -f "$state" ]; do
        kill -0 "$stack_pid" 2>/dev/null || { echo "the stack did not start" >&2; exit 1; }
        sleep 0.2
    done
    . "$state"
}

stop_stack() {
    if [ -n "$stack_pid" ]; then
        kill "$stack_pid" 2>/dev/null || true
        wait "$stack_pid" || true
        stack_pid=
    fi
}

# drop_stack NAME: stops it and removes its data.
drop_stack() {
    stop_stack
    rm -rf "${work:?}/$1"
}

measure_startup() {
    if [ "$1" = cloud ]; then
        # With the secret of the stack's store, without which a second server would not open it.
        "$bench" startup --server "$server" --json "$records/startup.json" --data-dir "$BENCH_DATA_DIR" \
            "--server-arg=--database-url=$BENCH_DATABASE_URL" "--server-arg=--redis-url=$BENCH_REDIS_URL"
    else
        "$bench" startup --server "$server" --json "$records/startup.json"
    fi
}

measure_baseline() {
    if [ "$1" = cloud ]; then
        tree=$(echo "$BENCH_PIDS" | grep -o -e '--pid-tree [0-9]*')
        # shellcheck disable=SC2086
        "$bench" postgres-baseline --database-url "$BENCH_DATABASE_URL" \
            --database-owner-url "$BENCH_DATABASE_SUPERUSER_URL" $tree --json "$records/baseline.json"
    else
        "$bench" sqlite-baseline --schema-from "$BENCH_DATA_DIR" --dir "$work" --json "$records/baseline.json"
    fi
}

# measure_max SEARCH: full speed of the embedded form over four connections: one org by HTTP/1.1 and by HTTP/2, and four orgs in turn.
measure_max() {
    for kind in http1 http2 orgs; do
        label="load max, search $1"
        http=1
        orgs=1
        case $kind in
        http2) http=2 label="load max http2, search $1" ;;
        orgs) http=2 orgs=4 label="load max four orgs, search $1" ;;
        esac
        start_stack "$kind$1" embedded --server-env "AGENTLENS_SEARCH=$1" --orgs "$orgs"
        # shellcheck disable=SC2086
        "$bench" load --url "$BENCH_URL" --keys-file "$BENCH_KEYS_FILE" --rate max --seconds "$load_seconds" \
            --http "$http" $BENCH_PIDS --label "$label" --json "$records/max-$kind-$1.json"
        if [ "$1$kind" = offhttp1 ]; then measure_baseline embedded; fi
        drop_stack "$kind$1"
    done
}

# measure_offered SEARCH: a bit more than the bar asks for, offered at a constant rate to the cloud form. At full speed its gateway
# takes several times what can be stored, and what is measured is a database that works off a backlog.
measure_offered() {
    start_stack "offered$1" cloud --server-env "AGENTLENS_SEARCH=$1"
    # shellcheck disable=SC2086
    "$bench" load --url "$BENCH_URL" --key "$BENCH_KEY" --rate 30000 --seconds "$load_seconds" --http 2 \
        $BENCH_PIDS --label "load 30000, search $1" --json "$records/offered-$1.json"
    if [ "$1" = off ]; then measure_baseline cloud; fi
    drop_stack "offered$1"
}

measure_form() {
    form=$1
    records=$work/records-$form
    mkdir "$records"

    for search in off on; do
        if [ "$form" = cloud ]; then measure_offered $search; else measure_max $search; fi
    done

    start_stack steady "$form" --server-env AGENTLENS_SEARCH=on
    # shellcheck disable=SC2086
    "$bench" load --url "$BENCH_URL" --key "$BENCH_KEY" --rate 10000 --seconds "$load_seconds" --visible \
        $BENCH_PIDS --label "load 10000" --json "$records/load-10000.json"
    measure_startup "$form"
    drop_stack steady

    start_stack reads "$form" --server-env AGENTLENS_SEARCH=on --orgs "$seed_orgs"
    "$bench" seed --url "$BENCH_URL" --keys-file "$BENCH_KEYS_FILE" --events "$seed_events" --orgs "$seed_orgs" \
        --state "$work/seed-$form.json" --json "$records/seed.json"
    "$bench" reads --url "$BENCH_URL" --keys-file "$BENCH_KEYS_FILE" --json "$records/reads.json"
    drop_stack reads

    set -- --server "$server" --form "$form" --kills "$kills" --appendfsync "$appendfsync" --dir "$work/crash"
    if [ "$form" = cloud ]; then
        set -- "$@" --pg-bin "$pg_bin" --redis-server "$redis_server"
        if [ -n "${RUN_AS:-}" ]; then set -- "$@" --run-as "$RUN_AS"; fi
    fi
    crashed=0
    "$bench" crash "$@" --json "$records/crash.json" || crashed=1
    rm -rf "$work/crash"

    "$bench" summary --form "$form" --out "${RESULTS:-bench/results}" "$records"/*.json
    if [ "$crashed" = 1 ]; then
        echo "the crash run of the $form form did not pass" >&2
        exit 1
    fi
}

# measure_otlp_load NAME LABEL SEARCH ORGS [ARGUMENT...]: one load of spans on a new server.
measure_otlp_load() {
    name=$1
    label=$2
    search=$3
    orgs=$4
    shift 4
    start_stack "$name" embedded --server-env "AGENTLENS_SEARCH=$search" --orgs "$orgs"
    # shellcheck disable=SC2086
    "$bench" otlp --url "$BENCH_URL" --keys-file "$BENCH_KEYS_FILE" --disk "$BENCH_DATA_DIR" $BENCH_PIDS \
        --label "$label" --json "$records/$name.json" "$@"
    drop_stack "$name"
}

# figure_of FILE NAME: a number of a record.
figure_of() {
    sed -n "s/^ *\"$2\": \([0-9.]*\),*\$/\1/p" "$1"
}

# measure_beside: the same spans for AgentLens and the other products, one after another.
measure_beside() {
    "$bench" startup --server "$server" --runs 2 --json "$work/startup.json"
    ready_s=$(awk "BEGIN { printf \"%.2f\", $(figure_of "$work/startup.json" first_ready_ms) / 1000 }")
    measure_otlp_load beside-agentlens "otlp beside: AgentLens" on 1 --spans "$peer_spans" \
        --figure "ready_s=$ready_s" --figure "idle_mib=$(figure_of "$work/startup.json" idle_rss_mib)"
    for peer in ${PEERS:-phoenix mlflow}; do measure_peer "$peer"; done
}

measure_otlp() {
    records=$work/records-otlp
    mkdir "$records"
    "$bench" normalise --json "$records/normalise.json"
    measure_otlp_load max "otlp max" on 1 --seconds "$load_seconds"
    measure_otlp_load max-http2 "otlp max http2" on 1 --seconds "$load_seconds" --http 2 --in-flight 4
    measure_otlp_load max-orgs "otlp max four orgs" on 4 --seconds "$load_seconds" --http 2
    measure_otlp_load max-nosearch "otlp max, search off" off 1 --seconds "$load_seconds"
    measure_otlp_load max-orgs-nosearch "otlp max four orgs, search off" off 4 --seconds "$load_seconds" --http 2
    measure_otlp_load max-json "otlp max json" on 1 --seconds "$load_seconds" --encoding json
    measure_otlp_load max-gzip "otlp max gzip" on 1 --spans "$otlp_spans" --gzip
    measure_otlp_load steady "otlp 5000" on 1 --seconds "$load_seconds" --rate 5000

    start_stack traces embedded
    "$bench" trace-page --url "$BENCH_URL" --key "$BENCH_KEY" --spans "$trace_spans" \
        --json "$records/trace-page.json"
    drop_stack traces

    if [ -n "${peers:-}" ]; then measure_beside; fi
    "$bench" otlp-summary --out "${RESULTS:-bench/results}" "$records"/*.json
}

if [ "$forms" = otlp ]; then
    measure_otlp
    exit
fi
if [ "$forms" != cloud ]; then measure_form embedded; fi
if [ "$forms" = cloud ] || { [ "$forms" = all ] && [ -n "$pg_bin" ] && [ -n "$redis_server" ]; }; then
    measure_form cloud
fi
