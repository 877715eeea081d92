# Two commands are all that users need: `make run` and `make test`. Each sets up what it needs.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OLDEST := .venv-oldest
NEWEST := .venv-newest
# A file's tests stay together: they share servers and databases. Many of them wait, so one process more than there are
# processors; in the order of tests/conftest.py, which puts what takes longest first.
PROCESSES := $(shell cpus=$$(getconf _NPROCESSORS_ONLN); echo $$((cpus < 4 ? cpus + 1 : 4)))
PARALLEL := -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run test test-oldest test-newest-python chaos lint types bench docs recipes clean

help: ## Show this text
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml
	@echo 'Setting up $(VENV) with the app, its tests and its documentation: once, some minutes. No key is needed.'
	$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.failed
	@( $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --editable '.[dev]' \
	  || touch $(VENV)/.failed ) | awk '/^(Collecting|Installing|Building)/ { print "  " substr($$0, 1, 100); fflush() }'
	@test ! -e $(VENV)/.failed || { echo 'The installation failed; the lines above say why.'; exit 1; }
	touch $@

run: $(INSTALLED) ## Serve the example app on http://127.0.0.1:8000 (PORT=9000: another port), with no key and no network
	$(BIN)/python -m example_app --port $(PORT)

test: lint types ## Run lint, type checks and all tests
	$(BIN)/python -m pytest $(PARALLEL)

# Old releases go over the packages of $(VENV), which stand behind them on the path.
test-oldest: $(INSTALLED) ## Run the tests that touch FastAPI and the SDKs against the oldest releases that are supported
	$(PYTHON) -m venv $(OLDEST)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > "$$($(OLDEST)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/behind.pth"
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	  'fastapi==0.137.0' 'openai[httpx2]==2.50.0' 'anthropic==1.0.0'
	$(OLDEST)/bin/python -m pytest $(PARALLEL) tests/plugin tests/inprocess tests/e2e/gateway

test-newest-python: ## Run the core tests on the newest Python that pyenv has; nothing where there is none
	@python=$$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python 2>/dev/null | sort -V | tail -1); \
	if [ -z "$$python" ]; then echo 'pyenv has no newer Python here: nothing to run'; exit 0; fi; \
	echo "$$python"; set -e; "$$python" -m venv $(NEWEST); \
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	$(NEWEST)/bin/python -m pytest $(PARALLEL) tests/exchange tests/settings tests/plugin tests/test_*.py

chaos: $(INSTALLED) ## Half an hour of load with faults, reloads and evictions; `make test` has a short form
	$(BIN)/python -m pytest tests/e2e/chaos
	$(BIN)/python -m tests.e2e.chaos.soak --minutes 30

lint: $(INSTALLED) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## Check types
	$(BIN)/mypy

bench: $(INSTALLED) ## Measure, against a bare relay in the same run
	$(BIN)/python -m benchmarks

docs: $(INSTALLED) ## Build the documentation into site/; a warning is an error
	$(BIN)/zensical build --clean --strict

recipes: $(INSTALLED) ## Run the recipes for other libraries with their newest releases
	$(BIN)/python examples/recipes/run.py

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(OLDEST) $(NEWEST) site .mypy_cache .pytest_cache .ruff_cache .hypothesis benchmarks/.build
