# Everything a person needs: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3
PROFILE ?= default
ARGS ?=
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup run story test test-fast check format ui clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/ready ## the virtual environment, from requirements.lock (once)

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "saeops needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

run: setup ## the whole pipeline on a real model (PROFILE=small|default|full, ARGS="--set train.k=64")
	$(BIN)/python -m flows build --profile $(PROFILE) $(ARGS)

story: setup ## a model changes: build, promote, fine-tune, audit, retrain, promote, roll back, on real weights
	$(BIN)/python -m examples.story $(ARGS)

test: setup ## every test (WORKERS=2 processes)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-fast: setup ## the tests that take seconds
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow" $(ARGS)

check: setup ## ruff, mypy, import-linter, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/consistency

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: setup ## MLflow's pages for the runs made here, on http://127.0.0.1:5000
	$(BIN)/mlflow ui --backend-store-uri sqlite:///var/mlflow.db --host 127.0.0.1 --port 5000

clean: ## remove what runs made here (artifacts/ and var/), not the environment
	rm -rf artifacts var
