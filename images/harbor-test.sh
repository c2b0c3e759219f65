#!/bin/bash
# Grades the one thing that crosses from the agent: the text of its patch, on a pristine image.
set -uo pipefail
cd /testbed
mkdir -p /logs/verifier
echo '{"reward": 0}' > /logs/verifier/reward.json
patch=/logs/artifacts/model.patch
[ -s "$patch" ] || { echo "the patch is empty"; exit 0; }
git apply --whitespace=nowarn "$patch" || { echo "the patch does not apply"; exit 0; }
@RESTORE@
git apply --whitespace=nowarn /tests/test.patch || exit 1
chown -R 1000:1000 /testbed
/opt/env/bin/python -E -S /opt/inputs/swefactory_verdict.py --tests /tests/tests.json \
  --reward /logs/verifier/reward.json @FILES@ > /logs/verifier/test_output.txt
exit 0
