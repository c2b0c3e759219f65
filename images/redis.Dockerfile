# Redis on the base of `swefactory images bootstrap`, for compose.airgap.yaml; as the official image, it keeps what it
# keeps in /data.
ARG BASE
FROM ${BASE}
ARG APT_OPTIONS=""
RUN --mount=type=bind,source=host,target=/host --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/cache/apt --mount=type=tmpfs,target=/var/log \
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
    && touch /etc/shadow /etc/gshadow && apt-get ${APT_OPTIONS} -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get ${APT_OPTIONS} -q install -y --no-install-recommends redis-server \
    && rm -f /etc/shadow* /etc/gshadow* /usr/sbin/policy-rc.d && install -d -o redis -g redis /data
USER redis
WORKDIR /data
VOLUME /data
CMD ["redis-server"]
