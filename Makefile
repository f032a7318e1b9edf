# python3 (with venv and pip) and make are all that is needed: everything else comes from requirements/*.lock.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMAGE_STAMP := $(VENV)/.installed-image
PORT ?= 8080
PYTHONS ?= 3.11 3.12 3.13
JOBS ?= 1
# The tests wait more than they compute: three processes share two cores, each with files of its own.
WORKERS ?= 3
SPREAD = --numprocesses $(WORKERS) --dist loadfile
# What "make test" runs, less what needs more than Python; with PYTEST, options for it: make test TESTS=tests/gateway.
TESTS ?= tests
DOCKER ?= docker
VERSION ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' pipecat_base/__init__.py)
# What the image is built on, and what its variant for an old Python, which the tests also use.
BASE_IMAGE ?= $(shell sh scripts/containers.sh pinned python:3.12-slim-trixie)
OLD_BASE_IMAGE ?= $(shell sh scripts/containers.sh pinned python:3.11-slim-trixie)
# Options of make soak: SOAK="--seconds 150".
SOAK ?=
# Options of make bench-report: BENCH="--rounds 8".
BENCH ?=
# More options for docker build.
IMAGE_ARGS ?=
# The echo bot's, for test-kubernetes: where the cluster finds it.
BOT_IMAGE ?= bot:1
BUILD = DOCKER_BUILDKIT=1 $(DOCKER) build --quiet --build-arg VERSION=$(VERSION) $(IMAGE_ARGS)

LOCK_ARGS ?=
# Without addresses, and for every Python from the oldest. No package is built to be resolved, but docopt, which has no wheel.
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-header --no-annotate --python-version 3.11 --only-binary :all: --no-binary docopt $(LOCK_ARGS)

.PHONY: help run call call-webrtc test isolated lint format bench bench-isolation bench-memory bench-report bench-observation browser clients proxy observability veth network matrix lowest versions reference docs test-docs image test-image lint-image bench-image kubernetes test-kubernetes soak faults wheels lock clean

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

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

test: $(STAMP)  ## Run the tests
	@$(BIN)/python -m pytest $(TESTS) --ignore tests/versions --ignore tests/network --ignore tests/image \
	    --ignore tests/browser --ignore tests/clients --ignore tests/docs --ignore tests/proxy --ignore tests/kubernetes \
	    --ignore tests/observability $(SPREAD) $(PYTEST)

isolated: $(STAMP)  ## The end-to-end tests with a process for each call, all of them observed: no secret is in a report or a metric
	@LAUNCHER_ISOLATION=process LAUNCHER_OBSERVED=1 $(BIN)/python -m pytest tests/e2e tests/gateway tests/hostile tests/observe $(SPREAD) $(PYTEST)

$(IMAGE_STAMP): $(STAMP) requirements/image.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/image.lock
	@touch $@

lint-image: $(IMAGE_STAMP)  ## hadolint, shellcheck, actionlint and zizmor
	@$(BIN)/hadolint Dockerfile examples/*/Dockerfile pipecat_base/cli/init/project/Dockerfile
	@$(BIN)/shellcheck image/start image/entrypoint image/health image/pipecat-base pre-app.sh scripts/*.sh .ci/run
	@$(BIN)/actionlint -shellcheck $(BIN)/shellcheck
	@$(BIN)/zizmor --offline --quiet .github

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

DOCS := $(VENV)/docs
$(DOCS)/.installed: $(STAMP) requirements/docs.lock
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(DOCS)
	@$(BIN)/uv pip install --quiet --python $(DOCS)/bin/python --require-hashes -r requirements/docs.lock
	@touch $@

test-docs: $(STAMP)  ## Every link, block and command of the documentation
	@$(BIN)/python -m pytest tests/docs tests/test_reference.py $(PYTEST)

docs: test-docs $(DOCS)/.installed  ## The same, and a site of it in .site/html
	@$(BIN)/python scripts/pages.py
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build
	@$(BIN)/python scripts/pages.py --check

bench: $(STAMP)  ## Start-up, memory and throughput against a bare server, in one run
	@$(BIN)/python -m benchmarks

bench-memory: $(STAMP)  ## What a pod holds on to over twenty calls of a bot with Silero, with and without its release
	@$(BIN)/python -m benchmarks.memory

bench-isolation: $(STAMP)  ## A process for each call against one for all: first line, memory, start, calls per machine
	@$(BIN)/python -m benchmarks.isolation

bench-report: $(STAMP)  ## These three into benchmarks/README.md, with plots: 20 minutes of a quiet machine
	@$(BIN)/python -m benchmarks.report $(BENCH)

soak: $(STAMP)  ## Thousands of short calls over every transport, in both isolations, and nothing of them stays
	@$(BIN)/python -m benchmarks.soak $(SOAK)

faults: $(STAMP)  ## Signals, kills, full disks, dead services, a clock that is set: what callers, probes and logs saw
	@$(BIN)/python -m benchmarks.faults

bench-observation: $(STAMP)  ## What metrics, reports and events cost at 80 calls
	@$(BIN)/python -m benchmarks.observation

bench-image: $(STAMP)  ## The image under the smallest profile, against its files without a container; as root
	@DOCKER=$(DOCKER) $(BIN)/python -m benchmarks.image

NODE_STAMP := tests/browser/node_modules/.installed
$(NODE_STAMP): tests/browser/package.json tests/browser/package-lock.json
	@cd tests/browser && npm ci --silent --no-audit --no-fund
	@touch $@

browser: $(STAMP) $(NODE_STAMP)  ## The page and pipecat's JavaScript clients, in Chromium
	@$(BIN)/python -m pytest tests/browser

CLIENTS := $(VENV)/clients
$(CLIENTS)/.installed: $(STAMP) requirements/clients.lock
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(CLIENTS)
	@$(BIN)/uv pip install --quiet --python $(CLIENTS)/bin/python --require-hashes -r requirements/clients.lock
	@touch $@

clients: $(CLIENTS)/.installed  ## Clients of Pipecat Cloud, evals and a fuzzer (FUZZ_SECONDS=45) against the gateway
	@CLIENTS_VENV=$(abspath $(CLIENTS)) $(BIN)/python -m pytest tests/clients

proxy: $(STAMP)  ## The gateway behind nginx and Caddy (those that are installed), with the files of deploy/
	@$(BIN)/python -m pytest tests/proxy $(PYTEST)

observability: $(STAMP)  ## The alerts and the dashboard of deploy/ in Prometheus, on launchers in trouble
	@$(BIN)/python -m pytest tests/observability $(PYTEST)

KUBERNETES := $(VENV)/kubernetes
$(KUBERNETES)/.installed: $(STAMP) requirements/kubernetes.lock
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(KUBERNETES)
	@$(BIN)/uv pip install --quiet --python $(KUBERNETES)/bin/python --require-hashes -r requirements/kubernetes.lock
	@touch $@

kubernetes: $(KUBERNETES)/.installed  ## The manifests of deploy/kubernetes against the schemas of Kubernetes 1.29 to 1.37
	@KUBERNETES_VENV=$(abspath $(KUBERNETES)) $(BIN)/python -m pytest tests/kubernetes/test_manifests.py

test-kubernetes: $(KUBERNETES)/.installed  ## Calls through updates, scale-ins and drains of BOT_IMAGE on the cluster of KUBECONFIG
	@KUBERNETES_VENV=$(abspath $(KUBERNETES)) BOT_IMAGE=$(BOT_IMAGE) \
	    $(BIN)/python -m pytest tests/kubernetes/test_cluster.py $(PYTEST)

veth: $(STAMP)  ## WebRTC and WhatsApp with nothing but the address of a veth; as root
	@sh scripts/in-namespace.sh $(BIN)/python -m pytest tests/e2e/test_webrtc.py tests/e2e/test_whatsapp.py $(SPREAD)

network: $(STAMP)  ## WebRTC between network namespaces, through coturn; as root
	@$(BIN)/python -m pytest tests/network

matrix:  ## The tests, or TARGET, on every installed Python of PYTHONS, JOBS (1) at once
	@TARGET="$(TARGET)" PYTHONS="$(PYTHONS)" JOBS="$(JOBS)" sh scripts/matrix.sh

LOWEST := $(VENV)/lowest
lowest: $(STAMP)  ## The launcher's tests with the oldest packages that it supports; the lock has the newest
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct .
	@LAUNCHER_PYTHON=$(abspath $(LOWEST))/bin/python $(BIN)/python -m pytest tests/e2e/test_bot.py tests/e2e/test_drain.py \
	    tests/e2e/test_health.py tests/e2e/test_session_api.py tests/e2e/test_websocket.py tests/gateway/test_dev.py \
	    tests/gateway/test_keys.py tests/gateway/test_telephony.py tests/gateway/test_uploads.py tests/hostile/test_edge.py \
	    -m "not needs_newest_packages" $(SPREAD)

versions: $(STAMP)  ## Dispatch with old and new pipecat-ai and pipecatcloud, each in an environment of its own
	@$(BIN)/python -m pytest tests/versions

image:  ## Build the image: pipecat-base:slim and :full, each with -nonroot
	@for target in slim full slim-nonroot full-nonroot; do \
	    echo "== $$target"; \
	    $(BUILD) --build-arg BASE_IMAGE=$(BASE_IMAGE) --target $$target -t pipecat-base:$$target . || exit 1; \
	done

test-image: $(IMAGE_STAMP) image  ## Run the image and users' projects in real containers, and print its layers
	@$(BUILD) --build-arg BASE_IMAGE=$(OLD_BASE_IMAGE) --target slim -t pipecat-base:slim-py3.11 .
	@DOCKER=$(DOCKER) BASE_IMAGE=$(BASE_IMAGE) $(BIN)/python -m pytest tests/image
	@DOCKER=$(DOCKER) $(BIN)/python scripts/layers.py pipecat-base:slim 100
	@DOCKER=$(DOCKER) $(BIN)/python scripts/layers.py pipecat-base:full 370

lock: $(STAMP)  ## Resolve the dependencies again
	@for name in bootstrap build clients docs full image kubernetes; do \
	    $(COMPILE) requirements/$$name.in -o requirements/$$name.lock || exit 1; \
	done
	@$(COMPILE) --no-deps requirements/client.in -o requirements/client.lock
	@$(COMPILE) pyproject.toml -o requirements/launcher.lock
	@$(COMPILE) pyproject.toml --group dev --extra pipecat --extra webrtc --extra daily -o requirements/dev.lock

wheels: $(STAMP)  ## Is there a wheel of every package of the image, for each Python and platform?
	@sh scripts/wheels.sh $(BIN)/uv

clean:  ## Remove what was made
	@rm -rf .site .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis reply.wav
