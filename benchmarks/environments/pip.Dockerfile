# A baseline's image: the interpreter's image, the checkout, and one step that installs. MARK makes it each instance's
# own. uv's program and cache are for the way "P by uv" alone. In the end the checkout's own files go, what the install
# wrote among them stays: an evaluation brings its checkout, in which the fix may have removed some.
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
    sh /pip/all.sh ${PYTHON} ${MARK}
