# Two commands from a bare checkout: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests that share a Ray run in one process, the others beside them.
PARALLEL ?= -n 2 --dist loadgroup

.PHONY: demo test lint slow mutants clean

demo: $(VENV)/.installed
	rm -rf runs/demo
	$(BIN)/pisa-ray train examples/digits.yaml --out runs/demo
	$(BIN)/pisa-ray report runs/demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow and not cluster" $(PARALLEL)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutants: $(VENV)/.installed
	$(BIN)/python tests/mutants.py

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m "slow or cluster" $(PARALLEL)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist runs
