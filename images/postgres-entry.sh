#!/bin/sh
# Makes the database on an empty volume and starts the server: postgres-entry postgres OPTION…. What is made is renamed
# when it is whole, so that a start that was cut short begins again.
set -eu
volume=/var/lib/postgresql/data
data=$volume/cluster
user=${POSTGRES_USER:-postgres}
name=${POSTGRES_DB:-$user}
if [ ! -d "$data" ]; then
  [ -n "${POSTGRES_PASSWORD:-}" ] || POSTGRES_PASSWORD=$(cat "${POSTGRES_PASSWORD_FILE:?holds the password of the user}")
  part=$volume/part
  rm -rf "$part"
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
  initdb --pgdata "$part" --username "$user" --pwfile /tmp/password --encoding UTF8 --locale C.UTF-8 \
    --auth-local trust --auth-host scram-sha-256
  rm -f /tmp/password
  echo 'host all all all scram-sha-256' >>"$part/pg_hba.conf"
  [ "$name" = postgres ] || printf 'CREATE DATABASE "%s"\n' "$name" | postgres --single -j -D "$part" postgres
  mv "$part" "$data"
fi
unset POSTGRES_PASSWORD
exec "$@" -D "$data" -c listen_addresses='*'
