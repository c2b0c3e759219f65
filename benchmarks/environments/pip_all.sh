#!/bin/sh
# all.sh PYTHON: the environment, the packages, and the checkout's own files away.
set -eu
sh /pip/prepare.sh "$1"
sh /pip/install.sh
cd /testbed
xargs -0 rm -f </pip/files
