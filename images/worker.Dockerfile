# The image of every service of ours in compose.yaml: the locked packages, the source, git, and docker's client, with
# which a worker asks the engine for sandboxes. It holds no secret and no catalog; it runs as an ordinary user.
ARG PYTHON_IMAGE=python:3.12-slim-trixie
FROM ${PYTHON_IMAGE}
RUN apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends git docker-cli docker-buildx \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/swefactory
COPY requirements.lock .
RUN --mount=type=cache,target=/var/cache/pip PIP_CACHE_DIR=/var/cache/pip pip install --require-hashes -r requirements.lock
COPY swefactory swefactory
COPY workers workers
COPY db db
COPY images images
ENV PYTHONPATH=/opt/swefactory
RUN python -m compileall -q swefactory workers db \
    && printf '#!/bin/sh\nexec python -m swefactory.cli.main "$@"\n' > /usr/local/bin/swefactory \
    && chmod 755 /usr/local/bin/swefactory
RUN useradd --uid 1000 --user-group --create-home swefactory && install -d -o 1000 -g 1000 /data
USER 1000:1000
WORKDIR /data
ENV SWEFACTORY_HOME=/data
VOLUME /data
CMD ["swefactory", "status"]
