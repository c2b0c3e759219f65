# A task instance on its environment: the sealed checkout of the base commit at /testbed, the project's static metadata,
# and what runs the tests as a validation does. Nothing of the fix or its tests is inside.
ARG ENVIRONMENT
FROM ${ENVIRONMENT}
COPY --chown=1000:1000 checkout /testbed
COPY project /opt/project
COPY inputs /opt/inputs
WORKDIR /testbed
