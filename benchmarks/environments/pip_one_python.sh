#!/bin/sh
# P: one configuration for every repository, as a paper would have it. Extras that are not declared are a warning of
# pip's; a requirements file that cannot be installed is left out, in this configuration's favour.
set -eu
. /pip/settings.sh
install -e '.[test,tests,testing]' pytest
found=""
try() {
  for file in "$@"; do
    [ -f "$file" ] || continue
    found=yes
    install -r "$file" || echo "left out: $file"
  done
}
try requirements.txt
found=""
try test-requirements.txt tests-requirements.txt requirements-test.txt requirements-tests.txt requirements-testing.txt \
  requirements_test.txt requirements/test.txt requirements/tests.txt requirements/testing.txt tests/requirements.txt
[ -n "$found" ] || try dev-requirements.txt requirements-dev.txt requirements_dev.txt requirements/dev.txt
