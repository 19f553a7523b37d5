# A private Redis with an append-only file, as the cloud form runs it. Sourced by scripts/services.sh.
# shellcheck shell=bash

REDIS_PID=

start_redis() {
    if [[ -n ${AGENTLENS_TEST_REDIS_URL:-} ]]; then return 0; fi
    if [[ -n ${REDIS_URL:-} ]]; then
        export AGENTLENS_TEST_REDIS_URL=$REDIS_URL
        return 0
    fi
    local binary
    binary=$(command -v redis-server || true)
    if [[ -z $binary ]] && apt_install redis-server; then
        binary=$(command -v redis-server || true)
    fi
    if [[ -z $binary ]]; then
        services_die 'Redis is missing. Either' \
            'install a server, 6.2 or newer, so that redis-server is on PATH (Debian: apt-get install redis-server), or' \
            'set REDIS_URL to one that runs, such as redis://127.0.0.1:6379/0 (tests write to it and empty databases).'
    fi
    export AGENTLENS_TEST_REDIS_BIN=$binary
    # Another process may take the port between the look and the start: then try the next one.
    for _ in 1 2 3; do
        if start_redis_once "$binary"; then return 0; fi
    done
    services_die 'redis-server does not start:' "$(tail -n 5 "$SERVICES_DIR/redis.log" 2>/dev/null)"
}

start_redis_once() {
    local port
    port=$(free_port)
    mkdir -p "$SERVICES_DIR/redis"
    # Many databases, so that each test can have one of its own. Locale: some hosts name one that is not installed.
    LC_ALL=C "$1" --port "$port" --bind 127.0.0.1 --dir "$SERVICES_DIR/redis" --appendonly yes \
        --appendfsync everysec --save '' --databases 4096 --daemonize no \
        >"$SERVICES_DIR/redis.log" 2>&1 </dev/null &
    REDIS_PID=$!
    for _ in $(seq 100); do
        if ! kill -0 "$REDIS_PID" 2>/dev/null; then
            REDIS_PID=
            return 1
        fi
        if (exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'PING\r\n' >&3 && read -r -t 1 answer <&3 && [[ $answer == +PONG* ]]) 2>/dev/null; then
            export AGENTLENS_TEST_REDIS_URL=redis://127.0.0.1:$port/0
            return 0
        fi
        sleep 0.1
    done
    stop_redis
    return 1
}

stop_redis() {
    if [[ -z $REDIS_PID ]]; then return 0; fi
    # Its data goes away with the directory: nothing to save.
    kill -KILL "$REDIS_PID" 2>/dev/null || true
    wait "$REDIS_PID" 2>/dev/null || true
    REDIS_PID=
}
