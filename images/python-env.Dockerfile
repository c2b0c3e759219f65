# An environment: the lock's packages in /opt/env. INSTALL is `wheels`, where no code of the packages runs and uv's
# cache is shared. Or it is `wheel`: then one package is built, as an ordinary user, with a cache that is thrown away and
# no secret, and all that is given back is its wheel; its processes are gone before root touches a file.
# What changes with every lock is in the folder `lock`, so that the system packages of two environments are one layer.
ARG PYTHON_IMAGE
ARG UV_IMAGE
ARG INSTALL
FROM ${UV_IMAGE} AS uv

FROM ${PYTHON_IMAGE} AS system
ARG SYSTEM_PACKAGES=""
ARG APT_OPTIONS=""
RUN --mount=type=bind,source=host,target=/host --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/cache/apt --mount=type=tmpfs,target=/var/log \
    [ -z "${SYSTEM_PACKAGES}" ] || { touch /etc/shadow /etc/gshadow && apt-get ${APT_OPTIONS} -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get ${APT_OPTIONS} -q install -y --no-install-recommends ${SYSTEM_PACKAGES} \
    && rm -f /etc/shadow* /etc/gshadow*; }

FROM system AS wheels
ARG PYTHON
RUN --mount=type=bind,from=uv,source=/uv,target=/opt/uv/uv --mount=type=bind,source=host,target=/host \
    --mount=type=bind,source=lock,target=/lock --mount=type=secret,id=index,uid=1000,target=/run/index.env \
    --mount=type=secret,id=uv,uid=1000,target=/run/uv.toml \
    --mount=type=cache,id=swefactory-uv,target=/cache,uid=1000,gid=1000 --mount=type=tmpfs,target=/tmp \
    --mount=type=tmpfs,target=/var/tmp --mount=type=tmpfs,target=/home --mount=type=tmpfs,target=/run/lock \
    sh /lock/install.sh wheels ${PYTHON}

FROM system AS building
ARG PYTHON
RUN --mount=type=bind,from=uv,source=/uv,target=/opt/uv/uv --mount=type=bind,source=host,target=/host \
    --mount=type=bind,source=lock,target=/lock --mount=type=tmpfs,target=/cache \
    --mount=type=tmpfs,target=/tmp --mount=type=tmpfs,target=/var/tmp --mount=type=tmpfs,target=/home \
    --mount=type=tmpfs,target=/run/lock \
    sh /lock/install.sh wheel ${PYTHON}

FROM scratch AS wheel
COPY --from=building /out/ /

FROM ${INSTALL}
