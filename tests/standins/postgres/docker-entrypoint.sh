#!/usr/bin/env bash
# What the official image documents for its entrypoint: on an empty data folder, make the cluster, the user and the database
# from POSTGRES_* and run /docker-entrypoint-initdb.d; then become the server, never as root.
set -euo pipefail

# NAME or NAME_FILE (a secret's file), or the default.
from_env() {
    local file=${1}_FILE
    if [[ -n ${!file:-} ]]; then
        printf -v "$1" '%s' "$(<"${!file}")"
    else
        printf -v "$1" '%s' "${!1:-${2:-}}"
    fi
    export "${1?}"
}

# Options only, or none: the server with them. Anything but the server runs as it is.
[[ $# -gt 0 && $1 != -* ]] || set -- postgres "$@"
[[ $1 == postgres ]] || exec "$@"

if [[ $(id -u) == 0 ]]; then
    mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
    find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
    exec setpriv --reuid postgres --regid postgres --init-groups "${BASH_SOURCE[0]}" "$@"
fi

if [[ ! -s $PGDATA/PG_VERSION ]]; then
    from_env POSTGRES_PASSWORD
    from_env POSTGRES_USER postgres
    from_env POSTGRES_DB "$POSTGRES_USER"
    from_env POSTGRES_INITDB_ARGS
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    [[ -n $POSTGRES_PASSWORD || $method == trust ]] || {
        echo "The database is not initialized and POSTGRES_PASSWORD is not set." >&2
        exit 1
    }

    # The arguments are one string, read as a shell would.
    arguments=()
    eval "arguments=($POSTGRES_INITDB_ARGS)"
    # The socket is where Debian's clients look, and in /tmp, where this build's own do.
    initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --set unix_socket_directories='/var/run/postgresql, /tmp' "${arguments[@]}"
    # Inside the container initdb's own `trust` stays; whoever comes from outside proves who he is.
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

    # On the socket only, so that nobody outside takes a half-made database for a ready one.
    pg_ctl --pgdata="$PGDATA" --options="-c listen_addresses=''" --wait start
    sql() { psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"; }
    [[ $POSTGRES_DB == postgres ]] || sql --dbname postgres --set=name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh)
                # A script without the executable bit is read into this shell.
                # shellcheck disable=SC1090 # the user's own file
                if [[ -x $file ]]; then "$file"; else . "$file"; fi
                ;;
            *.sql) sql --dbname "$POSTGRES_DB" --file "$file" ;;
            *.sql.gz) gunzip -c "$file" | sql --dbname "$POSTGRES_DB" ;;
        esac
    done
    pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
    printf '\nPostgreSQL init process complete; ready for start up.\n\n'
fi
exec "$@"
