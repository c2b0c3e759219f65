# uv's program alone. Builds mount it, so that no image carries it and no build sends it again.
FROM scratch
COPY uv /uv
