# The image, what it is made with, and the locks.
DOCKER ?= docker
# The base image, and the base of a variant with an old Python for the tests.
BASE_IMAGE ?= $(shell sh scripts/containers.sh pinned python:3.12-slim-trixie)
OLD_BASE_IMAGE ?= $(shell sh scripts/containers.sh pinned python:3.11-slim-trixie)
# More options for docker build.
IMAGE_ARGS ?=
BUILD = DOCKER_BUILDKIT=1 $(DOCKER) build --quiet --build-arg VERSION=$(VERSION) $(IMAGE_ARGS)
IMAGE_STAMP := $(VENV)/.installed-image

LOCK_ARGS ?=
# Without addresses, and for every Python from the oldest. Only docopt, which has no wheel, is built to be resolved.
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-header --no-annotate --python-version 3.11 --only-binary :all: --no-binary docopt $(LOCK_ARGS)

.PHONY: image test-image lint-image lock wheels

image:  ## Build the image: pipecat-base:slim and :full, each with -nonroot
	@for target in slim full slim-nonroot full-nonroot; do \
	    echo "== $$target"; \
	    $(BUILD) --build-arg BASE_IMAGE=$(BASE_IMAGE) --target $$target -t pipecat-base:$$target . || exit 1; \
	done

$(IMAGE_STAMP): $(STAMP) requirements/image.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/image.lock
	@touch $@

# The image and users' projects in real containers; prints the image's layers.
test-image: $(IMAGE_STAMP) image
	@$(BUILD) --build-arg BASE_IMAGE=$(OLD_BASE_IMAGE) --target slim -t pipecat-base:slim-py3.11 .
	@DOCKER=$(DOCKER) BASE_IMAGE=$(BASE_IMAGE) $(BIN)/python -m pytest tests/system/image
	@DOCKER=$(DOCKER) $(BIN)/python scripts/layers.py pipecat-base:slim 100
	@DOCKER=$(DOCKER) $(BIN)/python scripts/layers.py pipecat-base:full 370

# hadolint, shellcheck, actionlint and zizmor.
lint-image: $(IMAGE_STAMP)
	@$(BIN)/hadolint Dockerfile examples/*/Dockerfile pipecat_base/cli/init/project/Dockerfile
	@$(BIN)/shellcheck image/start image/entrypoint image/health image/pipecat-base pre-app.sh scripts/*.sh ci/*.sh .ci/run
	@$(BIN)/actionlint -shellcheck $(BIN)/shellcheck
	@$(BIN)/zizmor --offline --quiet .github

lock: $(STAMP)  ## Resolve the dependencies again
	@for name in bootstrap build clients docs full image kubernetes scaffolds; do \
	    $(COMPILE) requirements/$$name.in -o requirements/$$name.lock || exit 1; \
	done
	@$(COMPILE) --no-deps requirements/client.in -o requirements/client.lock
	@$(COMPILE) pyproject.toml -o requirements/launcher.lock
	@$(COMPILE) pyproject.toml --group dev --extra pipecat --extra webrtc --extra daily -o requirements/dev.lock

# Is there a wheel of every package of the image, for each Python and platform?
wheels: $(STAMP)
	@sh scripts/wheels.sh $(BIN)/uv
