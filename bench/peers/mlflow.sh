#!/bin/sh
# Runs MLflow's tracking server in the foreground: mlflow.sh ENVIRONMENT FOLDER PORT
# SQLite in the folder, no telemetry of its own; everything else as it comes (four workers).
set -eu
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
cd "$2"
exec "$1/bin/mlflow" server --host 127.0.0.1 --port "$3" \
    --backend-store-uri "sqlite:///$2/mlflow.db" --artifacts-destination "$2/artifacts"
