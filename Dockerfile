# The base image for voice bots.
#
#     docker build -t pipecat-base .                       the launcher; your Dockerfile adds pipecat and bot.py
#     docker build -t pipecat-base:full --target full .    pipecat too: mount bot.py and go
#
# Each also as -nonroot. BASE_IMAGE is a Debian with Python in /usr/local.
ARG BASE_IMAGE=python:3.12-slim-trixie

FROM ${BASE_IMAGE} AS builder
# Where TLS is intercepted, the build secret ca-bundle is trusted; elsewhere it does nothing.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1
WORKDIR /build
COPY requirements/bootstrap.lock requirements/launcher.lock ./
# hatchling and packaging, which come with it, stay here.
RUN --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes -r bootstrap.lock \
    && uv pip install --system --target /opt/pipecat-base/site --require-hashes -r launcher.lock \
    && mkdir -p /opt/uv/notices && cp "$(command -v uv)" /opt/uv/ \
    && cp -r "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"/uv-*.dist-info /opt/uv/notices/
COPY . launcher
RUN uv pip install --system --target /opt/pipecat-base/site --offline --no-deps --no-build-isolation ./launcher \
    && rm -rf /opt/pipecat-base/site/bin /opt/pipecat-base/site/.lock \
    && python launcher/image/list-packages.py /opt/pipecat-base/site \
    && python launcher/image/write-notices.py /opt/notices/third-party-notices.txt \
        --locks launcher.lock bootstrap.lock --folders /opt/pipecat-base/site /opt/uv/notices \
    && cp launcher/image/launch.py /opt/pipecat-base/ \
    && python -m compileall -q /opt/pipecat-base
COPY image/no-gl-driver.control /build/no-gl-driver/DEBIAN/control
RUN dpkg-deb --root-owner-group --build /build/no-gl-driver /build/no-gl-driver.deb

# For bots on pipecat-ai < 1.12. Where the network does not allow it, "optional" goes on without, and says so here and in
# the features summary; "required" fails, "no" does not try.
FROM ${BASE_IMAGE} AS nltk-data
ARG NLTK_DATA=optional
ARG NLTK_DATA_URL=https://raw.githubusercontent.com/nltk/nltk_data/4f15a3d89eefe9748ec1c05be495d91289197155/packages/tokenizers/punkt_tab.zip
ARG NLTK_DATA_SHA256=e57f64187974277726a3417ca6f181ec5403676c717672eef6a748a7b20e0106
COPY image/fetch-nltk-data.py /build/
RUN --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    python /build/fetch-nltk-data.py "${NLTK_DATA}" "${NLTK_DATA_URL}" "${NLTK_DATA_SHA256}" /opt/nltk_data

FROM ${BASE_IMAGE} AS packages
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1
COPY --from=builder /opt/uv/uv /usr/local/bin/uv
COPY requirements/full.lock requirements/client.lock requirements/build.lock image/write-notices.py /build/
RUN --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    uv pip install --system --prefix /opt/full --require-hashes --only-binary :all: --no-binary docopt \
        --build-constraints /build/build.lock -r /build/full.lock \
    && uv pip install --system --prefix /opt/full --require-hashes --no-deps -r /build/client.lock \
    && rm -f /opt/full/.lock \
    && python /build/write-notices.py /opt/notices/third-party-notices-full.txt \
        --locks /build/full.lock /build/client.lock --folders /opt/full/lib/python3.*/site-packages

FROM ${BASE_IMAGE} AS slim
ARG VERSION=dev
LABEL org.opencontainers.image.title="pipecat-base" \
      org.opencontainers.image.description="Serves a Pipecat voice bot: bot.py in, calls out" \
      org.opencontainers.image.licenses="BSD-2-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      daily.co/pipecat-cloud-base-version="${VERSION}"
# Without versions, so that a rebuild has the newest security fixes. debconf would copy its database, and ask nothing.
# su, mount and the like keep working for root; no other user gets rights from a file.
# hadolint ignore=DL3008
RUN --mount=type=bind,from=builder,source=/build,target=/build --mount=type=tmpfs,target=/var/cache/debconf \
    apt-get update \
    && apt-get install -y --no-install-recommends /build/no-gl-driver.deb libgl1 libglib2.0-0 tini \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# Python's own library comes without bytecode, and each start of a container would compile it again: on half a CPU that is
# a second and more.
RUN python -m compileall -q -j 0 \
        -x '/(config-[^/]*|ensurepip|idlelib|lib2to3|pydoc_data|site-packages|test|tests|tkinter|turtledemo)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=builder /opt/uv/uv /usr/local/bin/uv
COPY --from=nltk-data /opt/nltk_data /usr/local/share/nltk_data
COPY --from=builder /opt/notices /usr/share/doc/pipecat-base
COPY --from=builder /opt/pipecat-base /opt/pipecat-base
COPY --chmod=755 image/pipecat-base /usr/local/bin/pipecat-base
COPY --chmod=755 image/start image/with-environment image/entrypoint image/health /opt/pipecat-base/
WORKDIR /app
COPY --chmod=755 pre-app.sh /app/pre-app.sh
COPY --chmod=644 image/app.py /app/app.py
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    UV_PYTHON_INSTALL_DIR=/opt/uv/python \
    IMAGE_VERSION=${VERSION}
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["/opt/pipecat-base/health"]
# A start or an end that SIGTERM has cut short is a stop as asked: 143 becomes 0.
ENTRYPOINT ["/opt/pipecat-base/start"]

FROM slim AS full
COPY --from=packages /opt/full /usr/local
COPY --from=packages /opt/notices /usr/share/doc/pipecat-base

# What pip installs as 10001 goes where every other user can read it; what uv caches would stay in the image.
FROM slim AS slim-nonroot
RUN useradd --uid 10001 --user-group --create-home bot && install -d -o bot -g bot /app /opt/bot /opt/uv/python
ENV PYTHONUSERBASE=/opt/bot PATH=/app/.venv/bin:/opt/bot/bin:${PATH} UV_NO_CACHE=1
USER 10001:10001

FROM full AS full-nonroot
RUN useradd --uid 10001 --user-group --create-home bot && install -d -o bot -g bot /app /opt/bot /opt/uv/python
ENV PYTHONUSERBASE=/opt/bot PATH=/app/.venv/bin:/opt/bot/bin:${PATH} UV_NO_CACHE=1
USER 10001:10001

FROM slim
