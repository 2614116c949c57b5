#!/usr/bin/env bash
# Does what the official image documents. If the data folder is empty, it makes the cluster, and the user and the database in
# POSTGRES_*, and runs the files in /docker-entrypoint-initdb.d. Then it starts the server, never as root.
set -euo pipefail

# Sets NAME to the content of the file in NAME_FILE, or else to its value, or else to the default.
from_env() {
    local file=${1}_FILE
    if [[ -n ${!file:-} ]]; then
        printf -v "$1" '%s' "$(<"${!file}")"
    else
        printf -v "$1" '%s' "${!1:-${2:-}}"
    fi
    export "${1?}"
}

# If there are only options, or none, they are for the server. Any other command runs unchanged.
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

    # The arguments are in one string, which may have quotes.
    arguments=()
    eval "arguments=($POSTGRES_INITDB_ARGS)"
    # Debian's clients look for the socket in the first folder, those of this build in the second.
    initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --set unix_socket_directories='/var/run/postgresql, /tmp' "${arguments[@]}"
    # Inside the container, initdb's `trust` stays. Connections from outside need the password.
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

    # It listens only on the socket, so that no client outside uses a database that is not complete.
    pg_ctl --pgdata="$PGDATA" --options="-c listen_addresses=''" --wait start
    sql() { psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"; }
    [[ $POSTGRES_DB == postgres ]] || sql --dbname postgres --set=name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh)
                # A script that is not executable is read into this shell.
                # shellcheck disable=SC1090 # the user's file
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
