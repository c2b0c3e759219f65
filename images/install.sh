#!/bin/sh
# Fills /opt/env from /lock/lock.txt: install.sh PYTHON OPTION…. Root makes the folder and takes it over again at the
# end; all between runs as the sandbox's user with no power to become another.
set -eu
python=$1
shift
chmod 1777 /tmp /var/tmp /cache 2>/dev/null || true
mkdir -p /home/sandbox
chown 1000:1000 /home/sandbox
install -d -o 1000 -g 1000 /opt/env
as_user() { setpriv --reuid=1000 --regid=1000 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"; }
run_all() {
  . /host/settings.env
  [ ! -f /run/index.env ] || . /run/index.env
  export HOME=/home/sandbox UV_CACHE_DIR=/cache UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
  cd /home/sandbox
  as_user /opt/uv/uv venv --quiet --relocatable --no-project --allow-existing --python "$python" /opt/env
  site=$(echo /opt/env/lib/python*/site-packages)
  echo "import site; site.addsitedir('/opt/project')" >"$site/_swefactory.pth"
  as_user /opt/uv/uv pip install --require-hashes --no-deps "$@" --python /opt/env/bin/python -r /lock/lock.txt
}
run_all "$@"
as_user sh -c 'kill -KILL -1' || true # a build may have left a process that would race with what root does next
as_user env -i PATH=/usr/bin:/bin "$python" -I -S -m compileall -q -j 2 /opt/env/lib >/dev/null 2>&1 || true
chown -h -R 0:0 /opt/env
find /opt/env \( -perm /6000 -o -perm /022 \) ! -type l -exec chmod a-s,go-w {} +
