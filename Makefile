# Every target sets up what it needs, in .venv. The two to know: `make demo` and `make test`.
SHELL  := /bin/bash
PYTHON ?= python3
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# Without a GPU the CPU build of torch is enough, and several GB smaller than the default one: give the address of the
# index that torch's own instructions name for it, as in `make setup TORCH_INDEX=...`.
INDEX  := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
TEST   := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check format docs bench bench-full clean

help:            ## show this
	@grep -hE '^[a-z-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: .venv/ready-dev   ## install graft and what its development needs into .venv

demo: .venv/ready        ## six ways to adapt the bundled model to real data, compared on one page (a few minutes)
	$(BIN)/graft demo

test: .venv/ready-dev    ## the test suite
	$(TEST)

test-slow: .venv/ready-dev  ## the tests that take long
	$(TEST) -m slow --timeout 1800

check: .venv/ready-dev   ## style, types, and docs in step with the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/build.py --check

format: .venv/ready-dev  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/ready-dev    ## write docs/reference from the code
	$(BIN)/python docs/build.py

bench: .venv/ready-dev   ## measure against peers
	$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA)) $(if $(MODELS),--models $(MODELS))

bench-full: .venv/ready-dev  ## twelve contestants on five data sets, three sizes, three seeds (hours; goes on where it was)
	$(BIN)/python -m benchmarks.comparison full $(if $(DATA),--data $(DATA))

clean:           ## remove the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) $(INDEX) -e .
	@touch $@

.venv/ready-dev: .venv/ready
	@$(PIP) $(INDEX) -e '.[dev,track]'
	@touch $@
