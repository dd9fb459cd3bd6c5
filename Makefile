# `make` lists the targets. Set-up happens once, and again when the dependencies change.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format types check clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

$(READY): pyproject.toml constraints.txt
	@[ -x $(BIN)/pip ] || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "redraft needs Python 3.11 or newer, and '$(PYTHON)' is not that." \
	    "Name one that is: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up .venv (the first time downloads PyTorch: a few minutes) ..."
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv .venv
	@$(PIP) torch==2.13.0
	@$(PIP) -e '.[dev]'
	@touch $@

setup: $(READY)  ## make .venv with redraft and everything it needs

demo: $(READY)  ## run the demo
	@$(BIN)/redraft demo

test: $(READY)  ## run the tests
	@$(BIN)/python -m pytest

lint: $(READY)  ## look for mistakes and style
	@$(BIN)/ruff check .

format: $(READY)  ## rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: $(READY)  ## check the types
	@$(BIN)/mypy

check: $(READY)  ## everything that continuous integration runs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest

clean:  ## remove .venv, caches and build artefacts
	@rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
