# Tests that need more than Python: browsers, proxies, containers, a cluster, other versions of packages, root.
PYTHONS ?= 3.11 3.12 3.13
JOBS ?= 1
# Where the cluster of test-kubernetes finds the echo bot's image.
BOT_IMAGE ?= bot:1
COMPAT := tests/compat
SYSTEM := tests/system

.PHONY: matrix lowest versions browser clients scaffolds proxy observability veth network kubernetes test-kubernetes test-docs docs

# The tests, or TARGET, on every installed Python of PYTHONS, JOBS (1) at once.
matrix:
	@TARGET="$(TARGET)" PYTHONS="$(PYTHONS)" JOBS="$(JOBS)" sh scripts/matrix.sh

# The launcher's tests with the oldest packages that it supports; the lock has the newest.
LOWEST := $(VENV)/lowest
LOWEST_TESTS = $(addprefix tests/process/,e2e/test_bot.py e2e/test_drain.py e2e/test_health.py e2e/test_session_api.py \
    e2e/test_websocket.py gateway/test_dev.py gateway/test_keys.py gateway/test_telephony.py gateway/test_uploads.py \
    hostile/test_edge.py)
lowest: $(STAMP)
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct .
	@LAUNCHER_PYTHON=$(abspath $(LOWEST))/bin/python $(BIN)/python -m pytest $(LOWEST_TESTS) \
	    -m "not needs_newest_packages" $(SPREAD)

# Dispatch with old and new pipecat-ai and pipecatcloud, each in a virtual environment of its own.
versions: $(STAMP)
	@$(BIN)/python -m pytest $(COMPAT)/versions

# The page and pipecat's JavaScript clients, in Chromium.
NODE_STAMP := $(SYSTEM)/browser/node_modules/.installed
$(NODE_STAMP): $(SYSTEM)/browser/package.json $(SYSTEM)/browser/package-lock.json
	@cd $(SYSTEM)/browser && npm ci --silent --no-audit --no-fund
	@touch $@
browser: $(STAMP) $(NODE_STAMP)
	@$(BIN)/python -m pytest $(SYSTEM)/browser

# Each of these has a virtual environment of its own: its packages and ours do not resolve together.
$(VENV)/%/.installed: $(STAMP) requirements/%.lock
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r requirements/$*.lock
	@touch $@

# Clients of Pipecat Cloud, evals and a fuzzer (FUZZ_SECONDS=45) against the gateway.
clients: $(VENV)/clients/.installed
	@CLIENTS_VENV=$(abspath $(VENV)/clients) $(BIN)/python -m pytest $(COMPAT)/clients

# The projects that "pipecat init" writes.
scaffolds: $(VENV)/scaffolds/.installed
	@SCAFFOLDS_VENV=$(abspath $(VENV)/scaffolds) $(BIN)/python -m pytest $(COMPAT)/scaffolds $(SPREAD)

# The gateway behind nginx and Caddy (those that are installed), with the files of deploy/.
proxy: $(STAMP)
	@$(BIN)/python -m pytest $(COMPAT)/proxy $(PYTEST)

# The alerts and the dashboard of deploy/ in Prometheus, on launchers in trouble.
observability: $(STAMP)
	@$(BIN)/python -m pytest $(SYSTEM)/observability $(PYTEST)

# The manifests of deploy/kubernetes against the schemas of Kubernetes 1.29 to 1.37.
kubernetes: $(VENV)/kubernetes/.installed
	@KUBERNETES_VENV=$(abspath $(VENV)/kubernetes) $(BIN)/python -m pytest $(SYSTEM)/kubernetes/test_manifests.py

# Calls through updates, scale-ins and drains of BOT_IMAGE on the cluster of KUBECONFIG.
test-kubernetes: $(VENV)/kubernetes/.installed
	@KUBERNETES_VENV=$(abspath $(VENV)/kubernetes) BOT_IMAGE=$(BOT_IMAGE) \
	    $(BIN)/python -m pytest $(SYSTEM)/kubernetes/test_cluster.py $(PYTEST)

# WebRTC and WhatsApp with nothing but the address of a veth; as root.
veth: $(STAMP)
	@sh scripts/in-namespace.sh $(BIN)/python -m pytest $(addprefix tests/process/e2e/,test_webrtc.py test_whatsapp.py) $(SPREAD)

# WebRTC between network namespaces, through coturn; as root.
network: $(STAMP)
	@$(BIN)/python -m pytest $(SYSTEM)/network

test-docs: $(STAMP)  ## Check every link, block and command of the documentation
	@$(BIN)/python -m pytest $(SYSTEM)/docs tests/process/cli/test_reference.py $(PYTEST)

docs: test-docs $(VENV)/docs/.installed  ## The same, and a site of it in .site/html
	@$(BIN)/python scripts/pages.py
	@NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build
	@$(BIN)/python scripts/pages.py --check
