# Shared by the scripts. Sourced, never run.
# shellcheck shell=bash

# A developer's own settings must not reach the servers under test.
forget_settings() {
    local name
    while IFS= read -r name; do
        if [[ $name != AGENTLENS_TEST_* && $name != AGENTLENS_BINARY ]]; then unset "$name"; fi
    done < <(compgen -e AGENTLENS_ || true)
}

services_say() { printf 'services: %s\n' "$*" >&2; }

services_die() {
    services_say "$1"
    shift
    for line in "$@"; do printf '          %s\n' "$line" >&2; done
    exit 1
}

# Nothing listens on the port just now. The race that is left is met by the callers' retries.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return 0
        fi
    done
    services_die 'found no free TCP port between 20000 and 32000 on 127.0.0.1'
}

random_hex() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# Runs a command with root's rights if they can be had without asking anybody.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# Installs a Debian or Ubuntu package; says nothing unless it fails, and then lets the caller speak.
apt_install() {
    command -v apt-get >/dev/null || return 1
    services_say "installing the package $1 (apt-get)"
    local log
    log=$(mktemp)
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" >"$log" 2>&1 ||
        { as_root apt-get update >>"$log" 2>&1 &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" >>"$log" 2>&1; }; then
        rm -f "$log"
        return 0
    fi
    tail -n 5 "$log" >&2
    rm -f "$log"
    return 1
}
