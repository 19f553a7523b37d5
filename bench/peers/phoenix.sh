#!/bin/sh
# Runs Arize Phoenix in the foreground: phoenix.sh ENVIRONMENT FOLDER PORT
# SQLite in the folder, no authentication, no telemetry of its own; everything else as it comes. (It comes with
# `synchronous=OFF`, so what it stored may be lost with the power.)
set -eu
export PHOENIX_WORKING_DIR="$2" PHOENIX_HOST=127.0.0.1 PHOENIX_PORT="$3" PHOENIX_GRPC_PORT=$(($3 + 1))
export PHOENIX_TELEMETRY_ENABLED=false PHOENIX_ALLOW_EXTERNAL_RESOURCES=false
exec "$1/bin/phoenix" serve
