# `make demo` and `make test` do all set-up on a fresh machine; a second call installs nothing.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
# On Linux, PyPI's torch brings several GB of CUDA libraries. For the CPU build:
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --constraint constraints.txt
TORCH := $(shell grep -m1 '^torch==' constraints.txt)

# Keeps the four parts folders at the root from being imported under their bare names.
export PYTHONSAFEPATH := 1

.PHONY: help demo test lint check clean

help:
	@echo "make demo   train, search and deploy on simulated clicks"
	@echo "make test   run the tests"
	@echo "make lint   ruff (lint and format) and mypy"
	@echo "make check  lint and test"
	@echo "make clean  remove build products and caches; the virtual environment stays"

demo: $(VENV)/.installed
	$(BIN)/autorec demo

test: $(VENV)/.installed
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find autorec blocks graph kernels search_spaces experiments tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; (3, 10) <= sys.version_info[:2] < (3, 14) \
	    or sys.exit(f"Python 3.10 to 3.13 is needed, but {sys.executable} is {v}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone: nothing that the second line brings can then pull in another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) --editable '.[test,dashboard]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	touch $@
