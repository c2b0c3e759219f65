# One run of uv's resolver; the image that is exported holds what it left. MODE is `barred`, with the shared cache, the
# index's credentials and nothing in the place where uv would build, or `building`, where others' code may run: with a
# cache that is thrown away and no secret. NONCE keeps the engine from answering with what an earlier run left.
ARG PYTHON_IMAGE
ARG UV_IMAGE
ARG MODE
FROM ${UV_IMAGE} AS uv

FROM ${PYTHON_IMAGE} AS barred
ARG PYTHON
ARG NONCE
RUN --mount=type=bind,from=uv,source=/uv,target=/opt/uv/uv --mount=type=bind,source=host,target=/host \
    --mount=type=bind,source=inputs,target=/inputs --mount=type=secret,id=index,uid=1000,target=/run/index.env \
    --mount=type=secret,id=uv,uid=1000,target=/run/uv.toml \
    --mount=type=cache,id=swefactory-resolver,target=/cache,uid=1000,gid=1000 \
    --mount=type=bind,from=uv,source=/,target=/cache/builds-v0 \
    --mount=type=tmpfs,target=/tmp --mount=type=tmpfs,target=/var/tmp --mount=type=tmpfs,target=/home \
    --mount=type=tmpfs,target=/run/lock --mount=type=tmpfs,target=/scratch --mount=type=tmpfs,target=/log \
    sh /inputs/resolve.sh barred ${PYTHON}

FROM ${PYTHON_IMAGE} AS building
ARG PYTHON
ARG NONCE
RUN --mount=type=bind,from=uv,source=/uv,target=/opt/uv/uv --mount=type=bind,source=host,target=/host \
    --mount=type=bind,source=inputs,target=/inputs --mount=type=tmpfs,target=/cache \
    --mount=type=tmpfs,target=/tmp --mount=type=tmpfs,target=/var/tmp --mount=type=tmpfs,target=/home \
    --mount=type=tmpfs,target=/run/lock --mount=type=tmpfs,target=/scratch --mount=type=tmpfs,target=/log \
    sh /inputs/resolve.sh building ${PYTHON}

FROM ${MODE} AS ran

FROM scratch
COPY --from=ran /out/ /
