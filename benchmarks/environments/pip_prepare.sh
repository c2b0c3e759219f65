#!/bin/sh
# A virtual environment with today's pip in /opt/env: prepare.sh PYTHON. The files beside this one say the rest.
set -eu
. /pip/settings.sh
if [ -f /pip/by_uv ]; then
  /opt/uv/uv venv --quiet --python "$1" /opt/env
  install pip setuptools wheel
else
  "$1" -m venv /opt/env
  install --upgrade pip setuptools wheel
fi
