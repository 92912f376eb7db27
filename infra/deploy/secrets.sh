#!/bin/sh
# Makes the files of secrets that compose.yaml names, in the folder secrets beside it; what exists stays as it is.
# Back up rewardloop.json: without it no customer is recognised and no link is believed.
set -eu
umask 077
folder="${1:-$(dirname "$0")/secrets}"
mkdir -p "$folder"
cd "$folder"
word() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
[ -s postgres ] || word > postgres
[ -s pgpass ] || printf 'postgres:5432:*:rewardloop:%s\n' "$(cat postgres)" > pgpass
[ -s gate ] || printf 'team:{PLAIN}%s\n' "$(word)" > gate  # who opens MLflow and Prefect; nginx compares it as it is
[ -s grafana ] || word > grafana
[ -s rewardloop.json ] ||
  printf '{"master": "%s", "units": {"1": "%s"}, "tokens": {"1": "%s"}}\n' "$(word)" "$(word)" "$(word)" > rewardloop.json
