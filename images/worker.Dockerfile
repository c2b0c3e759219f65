# The image of every service of ours in compose.yaml: the locked packages, the source, git, and docker's client, with
# which the launcher builds. It holds no secret and no catalog; it runs as an ordinary user. PYTHON_IMAGE is an official
# image, or one of `swefactory images bootstrap`, which lays a folder `host` into the context: uv's program, the
# machine's package addresses and certificates; it is mounted and stays out of the image.
ARG PYTHON_IMAGE=python:3.12-slim-trixie
FROM ${PYTHON_IMAGE} AS given
COPY images/docker-client.sh images/worker-packages.sh host* /host/

FROM ${PYTHON_IMAGE}
ARG APT_OPTIONS=""
RUN --mount=type=bind,from=given,source=/host,target=/host --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/cache/apt --mount=type=tmpfs,target=/var/log --mount=type=tmpfs,target=/tmp \
    sh /host/docker-client.sh ${APT_OPTIONS}
ARG PYTHON=python3
RUN --mount=type=bind,from=given,source=/host,target=/host \
    --mount=type=bind,source=requirements.lock,target=/requirements.lock \
    --mount=type=secret,id=index,target=/run/index.env --mount=type=secret,id=uv,target=/run/uv.toml \
    --mount=type=cache,id=swefactory-worker,target=/var/cache/packages --mount=type=tmpfs,target=/tmp \
    sh /host/worker-packages.sh ${PYTHON}
WORKDIR /opt/swefactory
COPY swefactory swefactory
COPY workers workers
COPY db db
COPY images images
ENV PYTHONPATH=/opt/swefactory PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN python -m compileall -q swefactory workers db \
    && printf '#!/bin/sh\nexec python -m swefactory.cli.main "$@"\n' > /usr/local/bin/swefactory \
    && chmod 755 /usr/local/bin/swefactory
RUN { id -u 1000 >/dev/null 2>&1 || useradd --uid 1000 --user-group --create-home swefactory; } \
    && install -d -o 1000 -g 1000 /data /artifacts
USER 1000:1000
WORKDIR /data
ENV SWEFACTORY_HOME=/data
VOLUME /data /artifacts
CMD ["swefactory", "status"]
