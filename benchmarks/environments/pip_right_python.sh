#!/bin/sh
# A: what the project's files declare for its tests, without dates, and the project.
set -eu
. /pip/settings.sh
install -r /pip/requirements.txt -c /pip/constraints.txt -e .
