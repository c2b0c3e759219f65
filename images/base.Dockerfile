# Debian with what tests and builds commonly need, the sandbox's user, and the program that ends what a run started.
# The folder `host` holds the machine's package addresses and certificates; it is mounted and stays out of the image.
ARG ROOT
FROM ${ROOT}
ARG PACKAGES
ARG APT_OPTIONS=""
RUN printf 'path-exclude=/usr/share/%s/*\n' doc man locale info > /etc/dpkg/dpkg.cfg.d/slim
RUN --mount=type=bind,source=host,target=/host --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/cache/apt --mount=type=tmpfs,target=/var/log \
    apt-get ${APT_OPTIONS} -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get ${APT_OPTIONS} -q install -y --no-install-recommends ${PACKAGES}
RUN --mount=type=bind,source=supervise.c,target=/supervise.c \
    mkdir -p /opt/swefactory && gcc -O2 -static -s -Wall -Werror -o /opt/swefactory/supervise /supervise.c
RUN { id -u 1000 >/dev/null 2>&1 || useradd --uid 1000 --user-group --shell /bin/bash --home-dir /home/sandbox sandbox; } \
    && install -d -o 1000 -g 1000 /home/sandbox \
    && rm -f /etc/shadow /etc/shadow- /etc/gshadow /etc/gshadow- /root/.[a-z]* \
    && mkdir -p /testbed /opt/results /opt/env /opt/project/bin /opt/inputs \
    && chown 1000:1000 /testbed /opt/results && chmod 700 /root /var/log \
    && git config --system safe.directory /testbed
