# The only way to do a thing: CI, contributors and the README call these targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := 0.13.9
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo up test check lint types layers property faults steady fuzz audit bench results docs reference lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Rewardloop needs Python 3.11 or newer; set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import ctypes, sys; sys.platform == "linux" and ctypes.CDLL("libgomp.so.1")' 2>/dev/null || \
		{ echo "LightGBM needs the OpenMP runtime libgomp.so.1: apt-get install libgomp1 (or libgomp, or gcc)"; exit 1; }
	@touch $(STAMP)

setup: $(STAMP) ## create .venv with everything in it (commands are then .venv/bin/rewardloop …)

demo: setup ## run the whole loop on simulated customers, ending with a table
	@$(BIN)/rewardloop demo

up: setup ## serve API, MLflow and Prefect over the data folder, run the flows and, with Kafka, a worker
	@$(BIN)/rewardloop up

test: setup ## run the tests
	$(BIN)/python -m pytest tests

check: setup lint types layers test ## everything CI checks: ruff, mypy strict, layers, tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

property: setup ## the join's properties at full length (20,000 examples)
	REWARDLOOP_PROPERTY_EXAMPLES=20000 $(BIN)/python -m pytest tests/ingestion/join/test_join_properties.py

faults: setup ## break everything, lose nothing: the fault suite at full length (FAULTS="--seed 5 --only kill_at_random")
	@$(BIN)/python -m tests.stack.faults $(FAULTS)

steady: setup ## damage models, take dependencies away, ask too much: three tables and a verdict (STEADY="--only outage")
	@$(BIN)/python -m tests.stack.steady $(STEADY)

fuzz: setup ## throw 50,000 requests made from the OpenAPI document at a real server
	@$(BIN)/python -m tests.stack.fuzzing

audit: setup ## look for known vulnerabilities in the locked dependencies (1: some found, 2: the registry could not be asked)
	@$(BIN)/python -m tests.stack.dependencies

bench: setup ## run one benchmark: make bench NAME=import (without NAME: list them)
	@test "$(NAME)" != bandits || $(BIN)/uv pip install --quiet --python $(BIN)/python --group rivals || \
		echo "Vowpal Wabbit could not be installed; the benchmark runs without it." >&2
	@$(if $(KEEP),REWARDLOOP_BENCH_KEEP=1 )$(BIN)/python -m tests.benchmarks $(NAME)

results: setup ## write docs/results.md from what was kept with make bench NAME=… KEEP=1
	@$(BIN)/python -m tests.benchmarks.results $(RESULTS)

docs: setup ## build the documentation site into site/
	$(BIN)/mkdocs build --strict

reference: setup ## write docs/reference from the code
	$(BIN)/python -m tests.docs.reference

lock: setup ## compile requirements.lock anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --upgrade -o requirements.lock

clean: ## remove the environment and every built thing (not the data folder)
	rm -rf $(VENV) site .mypy_cache .ruff_cache .hypothesis
