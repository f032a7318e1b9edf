# python3 (with venv and pip) and make are all that is needed: everything else comes from requirements/*.lock.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8080
# Tests wait more than they compute: three processes share two cores, each with its own files.
WORKERS ?= 3
SPREAD = --numprocesses $(WORKERS) --dist loadfile
# Some of the tests, and options for pytest: make test TESTS=tests/process/gateway PYTEST="-k keys".
TESTS ?= tests/unit tests/process
PYTEST ?=
VERSION ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' pipecat_base/__init__.py)

.PHONY: help run call call-webrtc quick test isolated all lint format reference clean

help:  ## What a contributor runs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo 'More: ci/tests.mk, ci/image.mk, ci/benchmarks.mk'

$(STAMP): requirements/bootstrap.lock requirements/dev.lock pyproject.toml
	@echo "Setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

run: $(STAMP)  ## Talk to the echo bot in a browser, on PORT (8080)
	@cd examples/echo && PORT=$(PORT) exec $(abspath $(BIN))/pipecat-base dev --reload

call: $(STAMP)  ## Call the running bot as a phone provider, with examples/speech.wav
	@$(BIN)/pipecat-base call examples/speech.wav --url ws://127.0.0.1:$(PORT)/ws --out reply.wav

call-webrtc: $(STAMP)  ## Call it as a browser
	@$(BIN)/pipecat-base call examples/speech.wav --webrtc --url http://127.0.0.1:$(PORT)/api/offer --out reply.wav

quick: $(STAMP)  ## lint, and the tests that start no process: seconds
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest tests/unit --quiet -m "not slow" $(SPREAD) $(PYTEST)

test: $(STAMP)  ## The tests (TESTS, PYTEST)
	@$(BIN)/python -m pytest $(TESTS) $(SPREAD) $(PYTEST)

isolated: $(STAMP)  ## The end-to-end tests with a process for each call, all observed
	@LAUNCHER_ISOLATION=process LAUNCHER_OBSERVED=1 $(BIN)/python -m pytest $(addprefix tests/process/,e2e gateway hostile observe) $(SPREAD) $(PYTEST)

all:  ## What CI runs, installing what it needs
	@bash .ci/run

lint: $(STAMP)  ## ruff, mypy, and the shape of the package
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python scripts/architecture.py

format: $(STAMP)  ## Format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

reference: $(STAMP)  ## Write docs/reference from the code
	@$(BIN)/python scripts/reference.py

clean:  ## Remove what was made
	@rm -rf .site .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis reply.wav

include ci/tests.mk ci/image.mk ci/benchmarks.mk
