#!/bin/sh
# Fills /opt/venv from /requirements.lock: worker-packages.sh PYTHON. uv comes with the context, or by pip.
set -eu
python=$1
[ ! -f /host/settings.env ] || . /host/settings.env
[ ! -s /run/index.env ] || . /run/index.env
export UV_CACHE_DIR=/var/cache/packages/uv UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
uv=/host/uv
if [ ! -x "$uv" ]; then
  "$python" -m venv /tmp/uv
  PIP_CACHE_DIR=/var/cache/packages/pip /tmp/uv/bin/pip install --quiet "$(grep -oE '^uv==[0-9.]+' /requirements.lock)"
  uv=/tmp/uv/bin/uv
fi
"$uv" venv --quiet --no-project --python "$python" /opt/venv
"$uv" pip install --quiet --python /opt/venv/bin/python --compile-bytecode --require-hashes -r /requirements.lock
