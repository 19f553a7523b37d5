#!/bin/sh
# Installs the products that AgentLens is measured beside, each in a virtual environment of its own.
#
#   bench/peers/install.sh [phoenix|mlflow...]
#
# Settings: PEERS_DIR, the folder of the environments (.tools/peers); PYTHON (python3).
# The versions are pinned in <name>.txt; what they pull in is what pip resolves on that day.
set -eu
cd "$(dirname "$0")/../.."
peers=${PEERS_DIR:-.tools/peers}
if [ $# = 0 ]; then set -- phoenix mlflow; fi
for name; do
    pins=bench/peers/$name.txt
    if [ -f "$peers/$name/installed" ] && cmp -s "$pins" "$peers/$name/installed"; then continue; fi
    echo "installing $(cat "$pins")"
    "${PYTHON:-python3}" -m venv --clear "$peers/$name"
    "$peers/$name/bin/pip" install --quiet --disable-pip-version-check -r "$pins"
    cp "$pins" "$peers/$name/installed"
done
