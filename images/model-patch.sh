#!/bin/bash
# The change of /testbed since the image was made, on stdout. Taken against our own copy of the base: an agent's commits,
# configuration, hooks and filters have no say.
set -euo pipefail
work=$(mktemp -d)
mkdir "$work/objects"
export GIT_DIR=/opt/inputs/base.git GIT_WORK_TREE=/testbed GIT_INDEX_FILE="$work/index"
export GIT_OBJECT_DIRECTORY="$work/objects" GIT_ALTERNATE_OBJECT_DIRECTORIES=/opt/inputs/base.git/objects
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1
run_git() { git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.safecrlf=false "$@"; }
cd /testbed
tree=$(cat /opt/inputs/base_tree)
run_git read-tree "$tree"
exclude=()
while IFS= read -r -d '' path; do exclude+=(":(exclude,literal)${path%/.git}"); done \
  < <(find /testbed -mindepth 2 -name .git -prune -printf '%P\0')
run_git add --all --ignore-errors -- . "${exclude[@]}" || true
run_git diff --cached --binary --no-color --no-ext-diff --no-textconv --no-renames "$tree"
