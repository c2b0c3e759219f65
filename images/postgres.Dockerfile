# PostgreSQL on the base of `swefactory images bootstrap`, for compose.airgap.yaml. It takes what the official image takes:
# POSTGRES_USER, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_DB, and a volume at /var/lib/postgresql/data.
ARG BASE
FROM ${BASE}
ARG APT_OPTIONS=""
RUN --mount=type=bind,source=host,target=/host --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/cache/apt --mount=type=tmpfs,target=/var/log \
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
    && touch /etc/shadow /etc/gshadow \
    && useradd --system --user-group --home-dir /var/lib/postgresql --shell /bin/sh postgres \
    && apt-get ${APT_OPTIONS} -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get ${APT_OPTIONS} -q install -y --no-install-recommends postgresql \
    && rm -f /etc/shadow* /etc/gshadow* /usr/sbin/policy-rc.d && rm -rf /var/lib/postgresql/* \
    && ln -s /usr/lib/postgresql/*/bin /usr/lib/postgresql/bin \
    && install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data
COPY postgres-entry.sh /usr/local/bin/postgres-entry
RUN chmod 755 /usr/local/bin/postgres-entry
ENV PATH=/usr/lib/postgresql/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER postgres
WORKDIR /var/lib/postgresql
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["postgres-entry"]
CMD ["postgres"]
