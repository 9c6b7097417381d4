# `make serve` and `make test` are all that a fresh machine needs.

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PACKAGES := api serving model safety memorization
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help serve test lint format types imports unit lock clean

help: ## List what can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

serve: $(VENV)/serve.stamp ## Serve the embedded model on 127.0.0.1:8000 (installs what that needs)
	@exec $(BIN)/talipot serve

test: $(VENV)/test.stamp lint types imports unit ## Everything CI checks (installs what that needs)

lint: $(VENV)/test.stamp ## Formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/test.stamp ## Format and fix in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/test.stamp ## mypy --strict
	$(BIN)/mypy

imports: $(VENV)/test.stamp ## Which package may import which
	$(BIN)/lint-imports

unit: $(VENV)/test.stamp ## The test suite
	$(BIN)/python -m pytest

lock: ## Write .ci/lock/*.txt from what is installed in the environment
	$(BIN)/python .ci/lock.py

clean: ## Remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Talipot needs Python 3.11 or newer; none was found"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than the lock that it was made from, so a second run installs nothing.
$(VENV)/serve.stamp: .ci/lock/serve.txt pyproject.toml | $(BIN)/python
	$(PIP) install -r .ci/lock/serve.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/test.stamp: .ci/lock/test.txt pyproject.toml | $(BIN)/python
	$(PIP) install -r .ci/lock/test.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
