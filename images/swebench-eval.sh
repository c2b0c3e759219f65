#!/bin/bash
set -uxo pipefail
cd /testbed
@RESTORE@
@APPLY@
chown -R 1000:1000 /testbed
: '>>>>> Start Test Output'
/opt/env/bin/python -E -S /opt/inputs/swefactory_verdict.py @FILES@
: '>>>>> End Test Output'
