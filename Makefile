# Everything goes through a virtual environment of the project's own, made on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check
# Compiled files are kept even where the caller's environment says no: tests start many interpreters.
PYTEST  = PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 $(BIN)/python -m pytest
ALL     = $(PYTEST) -n logical --dist worksteal
# Tests with real parts wait for them more than they compute.
WAITING = $(PYTEST) -n $$(( 2 * $$(getconf _NPROCESSORS_ONLN) )) --dist worksteal
QUICK   = $(ALL) -m "not model and not crash" tests/unit tests/security
STAMP   = $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: ray parts help demo demos test test-quick crash races schemas same soak check dev links models bench injections alternatives clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: dev  ## Break a real service in a temporary folder and watch agents mend it
	@$(BIN)/watchkeeper demo

test: dev  ## Check everything: format, types, rules, units, real parts, a real model, the demo
	@$(MAKE) --no-print-directory -j 3 check models parts
	@$(QUICK)
	@$(ALL) tests/engine
	@$(WAITING) -m "not model and not crash" tests/integration tests/acceptance
	@$(PYTEST) -m "model and not crash" tests/integration tests/acceptance

parts:  ## Install PostgreSQL and bubblewrap for the tests, where that may be done without asking
	@missing=; ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="postgresql"; \
	command -v bwrap >/dev/null || missing="$$missing bubblewrap"; \
	test -n "$$missing" || exit 0; \
	command -v apt-get >/dev/null || { echo "not tested: $$missing (no apt-get here to install it)"; exit 0; }; \
	test "$$(id -u)" = 0 || sudo -n true 2>/dev/null || \
		{ echo "not tested: $$missing (it takes root, or sudo without a password, to install it)"; exit 0; }; \
	as=$$(test "$$(id -u)" = 0 || echo "sudo -n"); \
	$$as apt-get -qq update && $$as env DEBIAN_FRONTEND=noninteractive apt-get -qq install $$missing >/dev/null || \
		echo "not tested: $$missing (apt-get could not install it, see above)"

test-quick: dev  ## Unit and security tests alone: no model, no server
	@$(QUICK)

crash: dev models  ## Kill processes more than 1,000 times, everywhere (long; goes on where it was cut off)
	@HF_HUB_OFFLINE=1 $(BIN)/python -m tests.crash_campaign $(CRASHES)
	@$(PYTEST) -m crash

races: dev parts  ## Race claims, limits, approvals and escalations 1,000 times each, on both databases (long)
	@WATCHKEEPER_RACES=1000 $(PYTEST) --timeout=3600 -m "not crash" -k "at_once or races or exactly_one or slip" \
		$(foreach of,jobs_model blast approval_races escalation,tests/unit/test_$(of).py \
		tests/integration/on_postgresql/test_$(of).py)

schemas: dev models  ## Try 1,000 generated schemas of tools on a small model (long)
	@WATCHKEEPER_SCHEMAS=1000 $(PYTEST) tests/integration/test_generated_schemas.py

same: dev models  ## Compare 200 answers of a real model alone and in company (long)
	@WATCHKEEPER_REQUESTS=200 $(PYTEST) -s tests/integration/test_same_answers.py

ray: dev  ## Train on a Ray cluster of this machine alone, and cancel there, without the other tests
	@$(PYTEST) tests/integration/test_training_on_ray.py

demos: dev models  ## Play every fault of the demo with the real model, cut off from all networks (minutes)
	@WATCHKEEPER_DEMO=all $(PYTEST) tests/acceptance/test_demo.py

soak: dev models  ## Ask 500 mixed requests, give up on many, and look for what stays (long)
	@WATCHKEEPER_REQUESTS=500 $(PYTEST) -s tests/integration/test_soak.py

check: dev  ## Format, lint, strict types, import rule
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy -p watchkeeper
	@$(PYTEST) -q tests/unit/test_import_rule.py tests/unit/test_packaging.py

dev: $(STAMP) links  ## Set up the environment and the links that type checkers see

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11: name another, e.g. make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ echo "error: $(PYTHON) cannot make virtual environments: on Debian, apt-get install python3-venv"; exit 2; }
	@echo "Installing watchkeeper and what it needs into $(VENV): silent for two to five minutes, the first time ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

links:
	@mkdir -p .links/watchkeeper
	@find .links/watchkeeper -xtype l -delete
	@for room in models tools agents runtime; do ln -sfn ../../$$room .links/watchkeeper/$$room; done
	@for part in $$(cd watchkeeper && ls); do ln -sfn ../../watchkeeper/$$part .links/watchkeeper/$$part; done

models: dev  ## Pull the models that tests use, where they are not on this machine
	@$(BIN)/watchkeeper models pull qwen2.5-coder-0.5b-instruct
	@$(BIN)/watchkeeper models pull smollm2-135m-instruct

bench: dev models  ## Measure this machine: the command line, the model, incidents against chance
	@$(BIN)/python benchmarks/command_line.py
	@$(BIN)/watchkeeper models bench
	@$(BIN)/python benchmarks/incidents.py

injections: dev models  ## Put public injection texts into real incidents and count what they change (hours; goes on where it stopped)
	@$(BIN)/python benchmarks/injections.py

alternatives: dev models  ## Ask smolagents, transformers and llama.cpp the same (needs npm)
	@npm install --silent --prefix build/llama node-llama-cpp@3.22.1
	@$(BIN)/python benchmarks/alternatives/measure.py --modules build/llama/node_modules

clean:  ## Remove the environment, links, builds and caches (models stay)
	@rm -rf $(VENV) .links build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +
