# Every target sets itself up: a machine needs Python 3.11 or newer and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# On Linux only a build marked +cpu is free of several gigabytes of CUDA; elsewhere every build is.
ifeq ($(shell uname -s) $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu),Linux )
TORCH ?= torch==$(TORCH_VERSION)+cpu
else
TORCH ?= torch==$(TORCH_VERSION)
endif
# The extra index may be out of reach: torch is installed alone, so that this costs seconds and no other package.
TORCH_FLAGS := $(if $(findstring +cpu,$(TORCH)),--extra-index-url $(TORCH_CPU_INDEX) --retries 1 --timeout 15)

.PHONY: run test lint format clean

run: $(INSTALLED)
	$(BIN)/gptrec-rl demo --run-dir runs/demo --on-existing overwrite

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed, and '$(PYTHON)' isn't: say which, as in 'make $(or $(MAKECMDGOALS),run) PYTHON=python3.12'."; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps $(TORCH_FLAGS) '$(TORCH)' || { \
	    echo "No '$(TORCH)' was found. To take the default build with CUDA (several GB): make $(or $(MAKECMDGOALS),run) TORCH=torch"; \
	    exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
