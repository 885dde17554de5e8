# Everything goes through a virtual environment of the project's own, made on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check
STAMP   = $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help dev demo test test-quick check bench clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing watchkeeper and its dependencies into $(VENV) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

dev: $(STAMP) links  ## Set up the environment and the links that type checkers see

.PHONY: links
links:
	@mkdir -p .links/watchkeeper
	@for room in models tools agents runtime; do ln -sfn ../../$$room .links/watchkeeper/$$room; done
	@for part in $$(cd watchkeeper && ls); do ln -sfn ../../watchkeeper/$$part .links/watchkeeper/$$part; done

check: dev  ## Format, lint, strict types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy -p watchkeeper
