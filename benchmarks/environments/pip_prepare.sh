#!/bin/sh
# A virtual environment with today's pip in /opt/env: prepare.sh PYTHON. The files beside this one say the rest.
set -eu
. /pip/settings.sh
"$1" -m venv /opt/env
/opt/env/bin/python -m pip install --quiet --upgrade pip setuptools wheel
