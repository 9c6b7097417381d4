# `make serve` and `make test` are all that a fresh machine needs.

SHELL := /bin/bash
export VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := @.ci/install
BENCH ?= http_streaming
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help serve test lint format types imports unit bench proto lock clean

help: ## List what can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

serve: ## Serve the embedded model: HTTP on 127.0.0.1:8000, gRPC on 8500 (installs what that needs)
	$(INSTALL) serve
	@exec $(BIN)/talipot serve

test: lint types imports unit ## Everything CI checks (installs what that needs)

lint: ## Formatting and lint
	$(INSTALL) test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: ## Format and fix in place
	$(INSTALL) test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: ## mypy --strict
	$(INSTALL) test
	$(BIN)/mypy

imports: ## Which package may import which
	$(INSTALL) test
	$(BIN)/lint-imports

unit: ## The test suite
	$(INSTALL) test
	$(BIN)/python -m pytest

bench: ## Run one of benchmarks/: make bench BENCH=compressors ARGS=FILE
	$(INSTALL) test
	$(BIN)/python -m benchmarks.$(BENCH) $(ARGS)

proto: ## Generate the gRPC stubs from api/grpc/talipot/v1/generation.proto
	$(INSTALL) test
	$(BIN)/python .ci/proto.py

lock: ## Resolve pyproject.toml's ranges anew and write .ci/lock/*.txt
	@test -x $(BIN)/python || .ci/install serve
	$(BIN)/python .ci/lock.py

clean: ## Remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		.schemathesis build dist *.egg-info {memorization,model,safety}/kernels/_native*
