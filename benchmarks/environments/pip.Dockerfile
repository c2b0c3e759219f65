# A baseline's image: the interpreter's image, the checkout, and one step that installs. MARK makes it each instance's own.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
ARG PYTHON
ARG MARK
COPY tree /testbed
RUN --mount=type=bind,source=host,target=/host --mount=type=bind,source=pip,target=/pip \
    --mount=type=secret,id=index,target=/run/index.env \
    : ${MARK} swefactory-benchmark && sh /pip/prepare.sh ${PYTHON} && sh /pip/install.sh
