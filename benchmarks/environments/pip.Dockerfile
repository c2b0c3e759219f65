# A baseline's image: the interpreter's image, the checkout, and one step that installs. MARK makes it each instance's
# own. uv's program and cache are for the way "P by uv" alone.
ARG PYTHON_IMAGE
ARG UV_IMAGE
FROM ${UV_IMAGE} AS uv
FROM ${PYTHON_IMAGE}
ARG PYTHON
ARG MARK
COPY tree /testbed
RUN --mount=type=bind,source=host,target=/host --mount=type=bind,source=pip,target=/pip \
    --mount=type=bind,from=uv,source=/uv,target=/opt/uv/uv \
    --mount=type=cache,id=swefactory-benchmark-uv,target=/cache \
    --mount=type=secret,id=index,target=/run/index.env \
    : ${MARK} swefactory-benchmark && sh /pip/prepare.sh ${PYTHON} && sh /pip/install.sh
