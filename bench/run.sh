#!/bin/sh
# Measures everything of the table in README.md and writes bench/results/.
#
#   bench/run.sh [embedded|cloud|all]
#
# `all` (the default) measures the cloud form too if PostgreSQL and redis-server are there.
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
set -eu

cd "$(dirname "$0")/.."
forms=${1:-all}
load_seconds=${LOAD_SECONDS:-60}
seed_events=${SEED_EVENTS:-10000000}
seed_orgs=${SEED_ORGS:-40}
kills=${KILLS:-200}
appendfsync=${APPENDFSYNC:-everysec}
redis_server=${REDIS_SERVER:-$(command -v redis-server || true)}
pg_bin=${PG_BIN:-}
if [ -z "$pg_bin" ]; then
    for folder in /usr/lib/postgresql/*/bin /usr/local/pgsql/bin /usr/pgsql-*/bin; do
        if [ -x "$folder/initdb" ]; then pg_bin=$folder; fi
    done
fi

cargo build --release --locked -p agentlens -p agentlens-bench
target=${CARGO_TARGET_DIR:-target}/release
bench=$target/agentlens-bench
server=$target/agentlens
work=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/agentlens-bench.XXXXXX")
chmod 711 "$work"
stack_pid=

cleanup() {
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
        "$bench" startup --server "$server" --json "$records/startup.json" \
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

# measure_max FORM SEARCH: full speed over four connections, HTTP/1.1 and then HTTP/2.
measure_max() {
    for http in 1 2; do
        label="load max, search $2"
        if [ "$http" = 2 ]; then label="load max http2, search $2"; fi
        start_stack "max$http$2" "$1" --server-env "AGENTLENS_SEARCH=$2"
        # shellcheck disable=SC2086
        "$bench" load --url "$BENCH_URL" --key "$BENCH_KEY" --rate max --seconds "$load_seconds" --http "$http" \
            $BENCH_PIDS --label "$label" --json "$records/max-$http-$2.json"
        if [ "$2$http" = off1 ]; then measure_baseline "$1"; fi
        drop_stack "max$http$2"
    done
}

measure_form() {
    form=$1
    records=$work/records-$form
    mkdir "$records"

    measure_max "$form" off
    measure_max "$form" on

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

    "$bench" summary --form "$form" "$records"/*.json
    if [ "$crashed" = 1 ]; then
        echo "the crash run of the $form form did not pass" >&2
        exit 1
    fi
}

if [ "$forms" != cloud ]; then measure_form embedded; fi
if [ "$forms" = cloud ] || { [ "$forms" = all ] && [ -n "$pg_bin" ] && [ -n "$redis_server" ]; }; then
    measure_form cloud
fi
