# Sourced by the scripts here: makes .venv with this package and the extras in $1, once per change of setup.cfg.
# Written for bash; leaves $VENV set.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${LLM_MASTER_VENV:-.venv}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        # A version manager's shim may exist and not run, so it is asked.
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11, 3.12 or 3.13 with the venv module is needed (on Debian: apt-get install python3-venv)." >&2
    return 1
}

make_environment() {
    local extras=$1 stamp python wanted
    stamp="$VENV/.installed-${extras//,/-}"
    wanted=$(cat setup.cfg setup.py | cksum)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$VENV/bin/python" -c 'import llm_master' 2>/dev/null; then
        return
    fi
    python=$(find_python)
    echo "Making $VENV ($("$python" --version))..."
    [ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"
    echo "$wanted" > "$stamp"
}
