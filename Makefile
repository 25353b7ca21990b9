# Every target sets itself up: a machine needs Python 3.11 or newer and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
TARGET := $(or $(MAKECMDGOALS),run)

TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# On Linux only a build marked +cpu is free of several gigabytes of CUDA; elsewhere every build is.
ifeq ($(shell uname -s) $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu),Linux )
TORCH ?= torch==$(TORCH_VERSION)+cpu
else
TORCH ?= torch==$(TORCH_VERSION)
endif
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
# The extra index may be out of reach: torch is installed alone, so that this costs seconds and no other package.
TORCH_FLAGS := $(if $(findstring +cpu,$(TORCH)),--extra-index-url $(TORCH_CPU_INDEX) --retries 1 --timeout 10)

.PHONY: run test experiments bench chaos load-test fuzz compose-run compose-test lint format clean

run: $(INSTALLED)
	$(BIN)/gptrec-rl demo --run-dir runs/demo

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses logical

experiments: RESULTS := --results runs/experiments/results
experiments: $(INSTALLED)
	$(BIN)/gptrec-rl experiment run experiments/synthetic $(RESULTS)
	$(BIN)/gptrec-rl experiment table experiments/synthetic $(RESULTS)
	$(BIN)/gptrec-rl experiment report experiments/synthetic $(RESULTS)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks stages
	$(BIN)/python -m benchmarks curves

load-test: $(INSTALLED)
	$(BIN)/python -m benchmarks load

fuzz: $(INSTALLED)
	$(PIP_INSTALL) --editable '.[fuzz]'
	$(BIN)/python -m fuzzing

# Volumes stay, so that the next time goes on; `docker compose down --volumes` removes them.
compose-run:
	$(COMPOSE) up --build --detach || { $(COMPOSE) logs prepare; exit 1; }
	$(COMPOSE) logs --follow --no-log-prefix report; \
	code=$$(docker wait "$$($(COMPOSE) ps --all --quiet report)"); $(COMPOSE) down; exit "$$code"

compose-test: $(INSTALLED)
	$(BIN)/python -m pytest -m docker -o faulthandler_timeout=0 --capture no tests/docker

chaos: FAULTS ?= 200
chaos: SEED ?= 0
chaos: $(INSTALLED)
	$(BIN)/python -m chaos --faults $(FAULTS) --seed $(SEED)

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
	    echo "Python 3.11 or newer is needed, and $(PYTHON) isn't: name another, as in: make $(TARGET) PYTHON=python3.12"; \
	    exit 1; }
	@echo "Setting up $(VENV) with $(TORCH): a minute or two, once"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --no-deps $(TORCH_FLAGS) '$(TORCH)' || { \
	    echo "$(TORCH) isn't to be had here: taking PyTorch's default build, which brings several GB of CUDA"; \
	    $(PIP_INSTALL) 'torch==$(TORCH_VERSION)'; }
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@
