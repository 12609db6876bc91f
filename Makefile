# make demo | test | check: everything sets itself up first. `make setup` alone prepares .venv.
VENV := .venv/bin
SETUP_DONE := .venv/.mailwright-ready

.PHONY: all setup demo test test-fast check
all: check test

setup: $(SETUP_DONE)
$(SETUP_DONE): deploy/setup.py deploy/requirements-cpu.txt deploy/requirements-cuda.txt deploy/requirements-dev.txt pyproject.toml
	python3 deploy/setup.py

# CHECK=1: end after the comparison, with a status that says whether every step worked.
demo: setup
	$(VENV)/python deploy/demo.py $(if $(CHECK),--check)

test: setup
	$(VENV)/pytest

test-fast: setup
	$(VENV)/pytest -m "not vllm and not training"

check: setup
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
