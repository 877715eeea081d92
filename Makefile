# Two commands are all that users need: `make run` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test lint types check bench docs clean

help: ## Show this text
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

run: $(INSTALLED) ## Serve the example app on http://127.0.0.1:8000, with no key and no network
	$(BIN)/python -m example_app

test: lint types ## Run lint, type checks and all tests
	$(BIN)/python -m pytest

lint: $(INSTALLED) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## Check types
	$(BIN)/mypy

bench: $(INSTALLED) ## Measure, against a bare relay in the same run
	$(BIN)/python -m benchmarks

docs: $(INSTALLED) ## Build the documentation into site/; a warning is an error
	$(BIN)/zensical build --clean --strict

clean: ## Remove what the other targets made
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache .hypothesis benchmarks/.build
