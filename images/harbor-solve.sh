#!/bin/bash
# The reference fix, as the oracle applies it.
set -euo pipefail
cd /testbed
git apply --whitespace=nowarn /solution/gold.patch
