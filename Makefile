# openheart: `make demo` to see it, `make test` to trust it, `make help` for the rest.
#
# A fresh machine needs Python >= 3.10, make and git; everything else goes into $(VENV).

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
ARGS   ?=

BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test doctest lint format types arrows docs bench zoo weights clean

help:  ## list what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16

# Two stamps: the demo needs the product and its fast loops, the tests need the development set-up too.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "openheart: installing into $(VENV) (PyTorch is large; this is done once)"
	$(PIP) install --quiet -c constraints.txt -e ".[fast]"
	@touch $@

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "openheart: installing the development set-up into $(VENV) (PyTorch is large; this is done once)"
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch $(VENV)/.ready-demo $@

setup: $(VENV)/.ready  ## make the environment in .venv

demo: $(VENV)/.ready-demo  ## open a network's heart in the terminal (ARGS="--lang es" to choose)
	$(BIN)/openheart demo $(ARGS)

test: setup  ## all tests
	$(PYTEST) tests

doctest: setup  ## the examples in the docstrings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --doctest-modules src/openheart --ignore src/openheart/patients/train

lint: setup  ## style, and nothing unused
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## mypy --strict
	$(BIN)/mypy

arrows: setup  ## who may import whom
	$(BIN)/lint-imports

docs: setup  ## the pages and pictures that the product makes
	$(BIN)/python scripts/coverage.py
	$(BIN)/python scripts/readme.py
	$(BIN)/python scripts/architecture.py
	$(BIN)/python scripts/pictures.py

bench: setup  ## every benchmark, side by side with plain PyTorch
	@for script in $(filter-out %/pytorch_tests.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

zoo: setup  ## whole published architectures, explained and audited (slow)
	OMP_NUM_THREADS=$(JOBS) $(BIN)/python -m pytest -m zoo tests -v

weights: setup  ## train the patients again
	OMP_NUM_THREADS=1 $(BIN)/python -m openheart.patients.train all

clean:  ## remove caches and builds, keep the environment
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
