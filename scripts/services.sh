#!/usr/bin/env bash
# Gives tests a private PostgreSQL and a private Redis, and takes them away again at exit.
#
#   scripts/services.sh COMMAND [ARGUMENT...]   run a command with the services up
#   source scripts/services.sh                  the same for the rest of the calling script
#                                               (which must not set an EXIT trap of its own)
#
# Exports
#   AGENTLENS_TEST_DATABASE_OWNER_URL  the owner's role; may `create database`, cannot bypass row security
#   AGENTLENS_TEST_DATABASE_URL        the application's role; owns nothing, cannot bypass row security
#   AGENTLENS_TEST_REDIS_URL           database 0 of a server with many numbered databases
# and, where the servers are ours to start, for tests that kill and restart one of their own:
#   AGENTLENS_TEST_POSTGRES_BIN        directory of initdb, pg_ctl and postgres
#   AGENTLENS_TEST_POSTGRES_USER       operating-system user to run them as (empty: the caller)
#   AGENTLENS_TEST_REDIS_BIN           the redis-server program
#
# Servers that already run are used instead of private ones when these are set:
# DATABASE_OWNER_URL and DATABASE_URL together (the roles as above), and REDIS_URL.
set -euo pipefail

SERVICES_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/services/common.sh
source "$SERVICES_ROOT/scripts/services/common.sh"
# shellcheck source=scripts/services/postgres.sh
source "$SERVICES_ROOT/scripts/services/postgres.sh"
# shellcheck source=scripts/services/redis.sh
source "$SERVICES_ROOT/scripts/services/redis.sh"

stop_services() {
    local status=$?
    # A second interrupt must not leave a server behind.
    trap '' INT TERM
    stop_redis
    stop_postgres
    if [[ -n ${SERVICES_DIR:-} ]]; then rm -rf "$SERVICES_DIR"; fi
    return "$status"
}

start_services() {
    SERVICES_DIR=$(mktemp -d "${TMPDIR:-/tmp}/agentlens-services.XXXXXX")
    # The user that runs PostgreSQL has to walk through this directory.
    chmod 755 "$SERVICES_DIR"
    trap stop_services EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    start_redis
    start_postgres
}

start_services
if [[ ${BASH_SOURCE[0]} == "$0" && $# -gt 0 ]]; then
    "$@"
fi
