# Everything a newcomer, a developer or CI does with this checkout. `make` alone lists it.
# Nothing outside the checkout is touched: Python packages live in .venv, generated code in generated/,
# the embedded database in .data (as root, PostgreSQL itself may need a place below /var/lib/billing-engine).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

# Any Python from 3.11 on; `make PYTHON=/path/to/python3.12 …` chooses another one.
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Written by the generator itself, in the folder that it fills.
GENERATED := generated/.made

PROTOS := $(shell find protos -name '*.proto' 2>/dev/null)
MIGRATIONS := $(wildcard migrations/*.sql)
CHECKED := $(wildcard server client tests bench examples hatch_build.py)

# Arguments for pytest and for the server: make test ARGS='-k dunning', make run ARGS=--help
ARGS ?=

.PHONY: help
help: ## List these targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: install
install: $(INSTALLED) $(GENERATED) ## Make .venv with everything needed (the other targets do it by themselves)

.PHONY: run
run: install ## Run the server, with its embedded PostgreSQL unless BILLING_DATABASE_URL is set
	@exec $(BIN)/python -m billing_server $(ARGS)

.PHONY: test
test: install ## Run the tests (BILLING_TEST_DATABASE_URL names a PostgreSQL other than the embedded one)
	@$(BIN)/python -m pytest --ignore=tests/clients $(ARGS)

.PHONY: test-clients
test-clients: install ## Run the clients in Go, Node and Java against a served engine, where the toolchains are
	@files=; for tools in go:go node:npm java:mvn; do \
	  language=$${tools%:*}; tool=$${tools#*:}; \
	  if command -v $$tool >/dev/null 2>&1; then files="$$files tests/clients/test_$$language.py"; \
	  else echo "The client in $$language is not tested: no $$tool here."; fi; \
	done; if [ -n "$$files" ]; then exec $(BIN)/python -m pytest $$files $(ARGS); fi

.PHONY: check
check: install ## Check format, lint, types, import contracts, protos and migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CHECKED)
	$(BIN)/lint-imports
ifneq ($(PROTOS),)
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
endif
ifneq ($(MIGRATIONS),)
	$(BIN)/squawk $(MIGRATIONS)
endif

.PHONY: format
format: install ## Format Python and protos, and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

.PHONY: bench
bench: install ## Measure the engine beside the floors of its own machine
	@$(BIN)/python -m bench $(ARGS)

.PHONY: chaos
chaos: install ## Kill, cut off and slow down real servers under load, then audit (ARGS='--seconds 600 --seed 7')
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: simulate
simulate: install ## Live years of subscriptions in seconds, with faults, every promise checked (ARGS='--years 1000000')
	@$(BIN)/python -m tests.simulation $(ARGS)

.PHONY: protos
protos: $(INSTALLED) ## Generate Python and the descriptor set from protos/ into generated/
	@$(BIN)/python hatch_build.py

.PHONY: clean
clean: ## Remove what was built and cached; data (.data) stays
	rm -rf $(VENV) generated dist build tests/clients/.build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)." >&2; \
	  echo "Install one and name it: make PYTHON=python3.12 run" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }
	@echo "Installing into $(VENV) (once; takes a minute)…"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --editable '.[server,dev]'
	@touch $(INSTALLED) $(GENERATED)

$(GENERATED): $(INSTALLED) $(PROTOS) hatch_build.py
	@$(BIN)/python hatch_build.py
