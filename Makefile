# Two commands do everything: `make demo` and `make test`.  Every pip call takes the pins of constraints.txt.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
RESULTS ?= results

.PHONY: help demo test check test-docker test-browser test-chaos test-slow test-full lint format clean

help:
	@echo "make demo          set up, run the quick start, print leaderboard and report"
	@echo "make test          set up, run the fast tests"
	@echo "make check         format, lint and types"
	@echo "make test-docker   tests that need a Docker engine      (likewise test-browser, test-chaos, test-slow, test-full)"
	@echo "make clean         remove the environment, keep results"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "medsam-bench needs Python 3.11 or 3.12; name one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing pinned dependencies into $(VENV) (a few minutes the first time) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "Installing test tools ..."
	$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/bench run suites/quickstart.yaml --results $(RESULTS)

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-docker test-browser test-chaos test-full: test-%: $(VENV)/.dev
	$(BIN)/python -m pytest -m $*

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow and not full"

clean:
	rm -rf $(VENV)
