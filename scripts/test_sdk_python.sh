#!/usr/bin/env bash
# Drives the published Python SDK against target/debug/agentlens, embedded and on PostgreSQL + Redis.
# Arguments go to pytest. Run it inside scripts/services.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.tools/venv-sdk
scripts/venv.sh "$venv" -r tests/sdk_python/requirements.txt

AGENTLENS_BINARY=${AGENTLENS_BINARY:-${CARGO_TARGET_DIR:-target}/debug/agentlens}
if [[ ! -x $AGENTLENS_BINARY ]]; then
    echo "$AGENTLENS_BINARY is missing: cargo build --workspace --all-targets" >&2
    exit 1
fi
AGENTLENS_BINARY=$(realpath "$AGENTLENS_BINARY")
export AGENTLENS_BINARY
# The byte code of the tests would land in the source tree.
export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m pytest -c tests/sdk_python/pytest.ini tests/sdk_python "$@"
