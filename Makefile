# Everything here runs from a bare clone: each target sets up what it needs, once, and says so in one line.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/dev.txt requirements/model.txt
ARGS ?=

.PHONY: help setup servers demo observe test check format bench lock clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv with everything in it (quick when nothing changed)
	@scripts/setup.sh

servers: setup ## Have Jaeger and Prometheus on this machine (builds them once, which takes some ten minutes)
	@$(BIN)/python -m observability.servers.install --quiet

demo: setup ## Run the insurance claims, kill the engine in the middle, show what it cost (ARGS=--json)
	@$(BIN)/python -m workflows.insurance_claim.demo $(ARGS)

observe: setup servers ## The demo with Jaeger and Prometheus beside it, to look at (ARGS=--check compares them with the log)
	@$(BIN)/python -m observability.observe $(ARGS)

test: check servers ## Check, then run every test (ARGS="-k name" picks some)
	@$(BIN)/python -m pytest $(ARGS)

check: setup ## Format, lint, types and the contracts between packages
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy --no-error-summary
	@said=$$($(BIN)/lint-imports --no-logo) || { echo "$$said"; exit 1; }
	@echo "check: format, lint, types and contracts are in order"

format: setup ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: setup ## Measure the work claim-3step (ARGS=--help lists the single measurements)
	@$(BIN)/python -m benchmarks.claim_3step $(ARGS)

lock: setup ## Resolve pyproject.toml again into requirements/*.txt (ARGS=--upgrade takes newer versions)
	@scripts/lock.sh $(ARGS)

clean: ## Remove .venv, caches and what a run left here
	@rm -rf $(VENV) .longwatch .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
