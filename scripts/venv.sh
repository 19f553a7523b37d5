#!/usr/bin/env bash
# Makes a Python virtual environment ready and keeps it until what was asked of it changes.
#
#   scripts/venv.sh DIRECTORY REQUIREMENT...    a requirement is what pip accepts: a pinned name, or -r FILE
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/services/common.sh
source "$root/scripts/services/common.sh"

directory=$1
shift

python=$(command -v python3 || true)
if [[ -z $python ]] && apt_install python3; then python=$(command -v python3); fi
if [[ -z $python ]]; then
    services_die 'Python is missing: install python3, 3.11 or newer, with its venv module (Debian: apt-get install python3-venv).'
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    services_die "$("$python" --version) is too old: Python 3.11 or newer is needed as python3."
fi
# Debian ships Python without the part that puts pip into a new environment.
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null && ! apt_install python3-venv; then
    services_die 'The venv module is missing from python3 (Debian: apt-get install python3-venv).'
fi

wanted=$(
    "$python" --version
    for requirement in "$@"; do
        if [[ -f $requirement ]]; then cat "$requirement"; else echo "$requirement"; fi
    done
)
stamp=$directory/requirements.stamp
if [[ -x $directory/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then exit 0; fi

services_say "making the Python environment ${directory#"$root"/}"
rm -rf "$directory"
mkdir -p "$(dirname "$directory")"
"$python" -m venv "$directory"
if ! "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; then
    services_die "pip cannot install: $*" 'It needs the Python package index, or an index of your own set by PIP_INDEX_URL.'
fi
# Written last, so that an interrupted installation is not taken for a finished one.
echo "$wanted" >"$stamp"
