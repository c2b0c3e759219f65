#!/bin/sh
# install.sh wheels PYTHON    fills /opt/env from the wheels of /lock/lock.txt and from those in /lock/wheels
# install.sh wheel PYTHON     builds the one package of /lock/lock.txt; its wheel is left in /out, where uv's cache had it
# Options of a build are in /lock/options, one a line, bounds of what builds it in /lock/constraint.txt, and /lock/uv27
# stands for an interpreter of 2.7, see images/python27. Root makes the folders and takes over what is left at the end; all
# between runs as the sandbox's user with no power to become another.
set -eu
mode=$1
python=$2
chmod 1777 /tmp /var/tmp /cache 2>/dev/null || true
mkdir -p /home/sandbox
chown 1000:1000 /home/sandbox
install -d -o 1000 -g 1000 /opt/env
as_user() { setpriv --reuid=1000 --regid=1000 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"; }
install_packages() { as_user /opt/uv/uv pip install --no-deps --python /opt/env/bin/python "$@"; }
. /host/settings.env
[ ! -f /run/index.env ] || . /run/index.env
export HOME=/home/sandbox UV_CACHE_DIR=/cache UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
cd /home/sandbox
for_uv=$python
[ ! -d /lock/uv27 ] || for_uv=/lock/uv27/python
as_user /opt/uv/uv venv --quiet --relocatable --no-project --allow-existing --python "$for_uv" /opt/env
if [ "$mode" = wheel ]; then
  set --
  while IFS= read -r option; do set -- "$@" "$option"; done </lock/options
  install_packages --require-hashes --build-constraints /lock/constraint.txt "$@" -r /lock/lock.txt
  as_user sh -c 'kill -KILL -1' || true # the build may have left a process that would race with what root does next
  mkdir /out
  cd /cache
  find . -type f -name '*.whl' -exec cp --parents -t /out {} +
  exit 0
fi
site=$(echo /opt/env/lib/python*/site-packages)
echo "import site; site.addsitedir('/opt/project')" >"$site/_swefactory.pth"
install_packages --require-hashes --no-build -r /lock/lock.txt
set -- /lock/wheels/*.whl
[ ! -f "$1" ] || install_packages --no-build --offline "$@"
[ ! -d /lock/uv27 ] || as_user sh /lock/uv27/finish.sh "$python" /opt/env
if [ -d /lock/uv27 ]; then options='-E -s -S -m compileall -q'; else options='-I -S -m compileall -q -j 2'; fi
# The tests that packages bring along are left out: see kept_bytecode.py.
# shellcheck disable=SC2086
as_user env -i PATH=/usr/bin:/bin "$python" $options -x '/site-packages/(.*/)?tests?/' /opt/env/lib >/dev/null 2>&1 || true
chown -h -R 0:0 /opt/env
find /opt/env \( -perm /6000 -o -perm /022 \) ! -type l -exec chmod a-s,go-w {} +
