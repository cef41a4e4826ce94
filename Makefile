# `make demo` and `make test` are all that a fresh machine needs; each sets up what is missing first.

PYTHON ?= python3
ARGS ?=
PROVIDER ?=
SEED ?= 7
# Test processes at once; 0 runs in this one (for a debugger). Two a core: tests wait for calls in real time.
JOBS ?= $(shell "$(PYTHON)" -c 'import os; print(2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2))')

# For make check, which waits little: each process that is one too many costs seconds of imports.
CHECK_JOBS ?= $(shell "$(PYTHON)" -c 'import os; print(1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2))')
# Coverage is measured and held for the whole suite; with ARGS a part may run, which covers less.
COVERAGE ?= $(if $(strip $(ARGS)),,yes)

# Tests start Python more than a hundred times: what is compiled once is kept, also where the environment forbids it.
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
MYPY_PATHS := connector simulator/src demo scripts tests $(wildcard bench)

JITTERED := $(addprefix tests/integration/test_,hooks_carriers.py hooks_twilio.py place_call.py place_call_status.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo chaos soak check test jitter lint format gen conformance bench dist lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv and build livekit-server into .tools (kept; PYTHON=python3.12 names another Python)
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "setup: no $(PYTHON) on this machine: install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("setup: $(PYTHON) is Python %d.%d; 3.11 or newer is needed: make PYTHON=..." % sys.version_info[:2])'
	@"$(PYTHON)" scripts/setup.py

demo: setup ## a simulated phone call talks with an agent in a real room (ARGS=--keep leaves it running)
	@$(PY) -m demo $(if $(PROVIDER),--provider $(PROVIDER)) $(ARGS)

chaos: setup ## live calls over two processes, and one outage after the other (ARGS="--calls 4")
	@$(PY) -m demo.chaos $(ARGS)

soak: setup ## many short calls: memory, threads, descriptors, and what is left over (ARGS="--calls 2000")
	@$(PY) -m demo.soak $(ARGS)

check: setup ## run the tests that need no livekit-server
	@$(PY) -m pytest -n $(CHECK_JOBS) --dist loadfile -p no:rerunfailures tests/unit tests/contract $(ARGS)

test: setup ## run the tests (ARGS="-k name", JOBS=0 for one process)
	@$(PY) -m pytest -n $(JOBS) --dist loadfile -m "not alone" --durations=25 $(if $(COVERAGE),--cov=connector) $(ARGS)

jitter: setup ## a few tests of carriers whose independent requests overtake one another (SEED=7)
	@CARRIER_SIMULATOR_JITTER=$(SEED) $(PY) -m pytest -n $(JOBS) --dist loadfile $(JITTERED) $(ARGS)

lint: setup ## ruff, mypy, the layers, generated code up to date, nothing of one machine committed
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy $(MYPY_PATHS)
	@.venv/bin/lint-imports --no-cache
	@$(PY) scripts/gen.py --check
	@$(PY) scripts/check_tree.py

format: setup ## let ruff format and mend what it can
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

gen: setup ## write gen/ anew from proto/
	@$(PY) scripts/gen.py

conformance: setup ## run the official SDK clients against the service, and the tests that need the machine to themselves
	@scripts/conformance $(ARGS)

bench: setup ## measure latency and cost against the baselines; writes bench-out/
	@$(PY) -m bench $(ARGS)

dist: setup ## build source archives and wheels of connector and simulator into dist/, and check them
	@rm -rf dist
	@for project in . simulator; do \
	  $(PY) -m uv build --quiet --python $(PY) --no-build-isolation --out-dir dist $$project || exit; done
	@$(PY) -m uv tool run --quiet --from 'twine~=6.2' twine check --strict dist/*

lock: setup ## resolve requirements.lock anew from pyproject.toml
	@$(PY) scripts/lock.py $(ARGS)

clean: ## remove what setup and the runs made
	rm -rf .venv .tools demo-out bench-out ci-out coverage-out build dist *.egg-info simulator/build simulator/src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf tests/conformance/*/build tests/conformance/*/target tests/conformance/*/node_modules
	rm -rf examples/*/build examples/*/target examples/*/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
