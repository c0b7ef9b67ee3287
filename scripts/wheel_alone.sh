#!/usr/bin/env bash
# Prove by hand that the wheel needs no clone: a fresh environment somewhere else, a new project, its tests, the engine.
# Needs a package registry, so it is no test.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
place=$(mktemp -d)
engine=
trap '[[ -n $engine ]] && kill -TERM "$engine" 2>/dev/null && wait "$engine"; rm -rf "$place"' EXIT

.venv/bin/python -m hatchling build --target wheel --directory "$place/dist"
cd "$place"
"$root/.venv/bin/uv" venv --quiet --python "$root/.venv/bin/python" alone
"$root/.venv/bin/uv" pip install --quiet --python alone/bin/python dist/longwatch-*.whl pytest
PATH=$place/alone/bin:$PATH
unset VIRTUAL_ENV PYTHONPATH

longwatch new my-shop
cd my-shop
longwatch check
pytest
longwatch run &
engine=$!
longwatch send events/order-placed.json --until-rest --timeout 120
longwatch show order/1001
longwatch history order/1001
kill -TERM "$engine"
wait "$engine"
engine=
echo "wheel_alone: a project of the wheel alone lives"
