# One command for each verb. Each works on a bare machine (Python >= 3.11 with pip) and is
# quick when there is nothing to do.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install install-dev run test test-fast long fuzz lint format bench docs lock clean

help:
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Manyways needs Python 3.11 or newer; '$(PYTHON)' is `$(PYTHON) --version`. Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear .venv

# An environment whose making was interrupted has a Python, but no pip that works.
.venv/.pip: $(BIN)/python
	@{ $(BIN)/python -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' && \
		$(BIN)/python -m pip --version; } >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@touch $@

.venv/.runtime: requirements/runtime.txt pyproject.toml .venv/.pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	@touch $@

install: .venv/.runtime ## put everything the gateway needs into .venv

# The tests with Node.js are skipped, and say so, where there is no npm.
NODE_PACKAGES := $(if $(shell command -v npm),tests/node/node_modules/.package-lock.json)

tests/node/node_modules/.package-lock.json: tests/node/package.json tests/node/package-lock.json
	cd tests/node && npm ci --silent --no-audit --no-fund
	@touch $@

install-dev: .venv/.dev $(NODE_PACKAGES) ## the same, and what tests and checks need

run: install ## install, then serve on 127.0.0.1:8080
	@$(BIN)/manyways serve

# Tests wait more than they work: three processes keep two cores busy.
test: install-dev ## install, then run the whole test suite
	$(BIN)/python -m pytest -n 3 --dist loadfile

test-fast: install-dev ## the suite without servers, processes or the model
	$(BIN)/python -m pytest -m "not process and not model and not node"

long: install-dev ## the long forms of what the suite does in small: kills, crowds, connections, answers
	KILLS=50 $(BIN)/python -m pytest tests/gateway/test_account.py -k kill
	KILLS=10 $(BIN)/python -m pytest tests/gateway/test_verification_crash.py -k kill
	RUNS=20 $(BIN)/python -m pytest tests/gateway/test_exactness.py -k thousand
	RUNS=1 $(BIN)/python -m pytest tests/gateway/test_verification_nodes.py -k database
	RUNS=1000 $(BIN)/python -m pytest tests/upstream/test_transport_stale.py -k nothing_is_lost
	RUNS=100 $(BIN)/python -m pytest tests/upstream/test_transport_leaving.py -k thousands
	FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz

FUZZ ?= 1000000
fuzz: install-dev ## a million made-up answers of a provider (FUZZ=n: another number)
	FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz

lint: install-dev ## formatting, style, types, layers, module sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/support/module_size.py

format: install-dev ## write the formatting
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## install the peers into bench/.peers and measure against them
	$(BIN)/python -m bench

docs: install-dev ## write the generated parts of docs/
	$(BIN)/python -m tests.support.write_docs

lock: ## pin the requirement files anew (needs uv)
	uv pip compile requirements/runtime.in --override requirements/overrides.txt --generate-hashes --no-emit-index-url --universal --python-version 3.11 -o requirements/runtime.txt
	uv pip compile requirements/dev.in --override requirements/overrides.txt --generate-hashes --no-emit-index-url --universal --python-version 3.11 -o requirements/dev.txt

clean: ## remove the environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
