#!/bin/sh
# Runs uv with the arguments in /inputs/arguments, one a line: resolve.sh MODE PYTHON. Leaves in /out: `status`, `log`
# and `written`, a copy of the file that /inputs/writes names. uv runs as the sandbox's user, with no power to become
# another; root copies what it left when no process of it is alive, and only a plain file.
set -eu
mode=$1
python=$2
mkdir -p /out /home/sandbox
chmod 700 /out /log
chmod 1777 /tmp /var/tmp
[ "$mode" = barred ] || chmod 1777 /cache
cp /inputs/files/* /scratch/
chown -R 1000:1000 /scratch /home/sandbox
chmod 755 /scratch
as_user() {
  setpriv --reuid=1000 --regid=1000 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    prlimit --nproc=1024 --fsize=2147483648 --core=0 -- "$@"
}
[ ! -d /inputs/uv27 ] || python=/inputs/uv27/python # stands for an interpreter of 2.7, see images/python27
. /host/settings.env
[ ! -f /run/index.env ] || . /run/index.env
export HOME=/home/sandbox UV_CACHE_DIR=/cache UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
export PYTHONDONTWRITEBYTECODE=1
cd /scratch
# This uv must be seen to stop where it would build, by a package of ours, before the shared cache is trusted to it.
if [ "$mode" = barred ] && as_user /opt/uv/uv pip compile /inputs/probe/in --no-index --find-links /inputs/probe \
  --python "$python" --quiet >/dev/null 2>&1; then
  echo unbarred >/out/status
  exit 0
fi
status=0
as_user xargs -d '\n' -a /inputs/arguments /opt/uv/uv >/log/log 2>&1 || status=$?
as_user sh -c 'kill -KILL -1' || true
writes=/scratch/$(cat /inputs/writes)
if [ ! -L "$writes" ] && [ -f "$writes" ] && [ "$(stat -c %s "$writes")" -le 8388608 ]; then cp "$writes" /out/written; fi
tail -c 1048576 /log/log >/out/log
echo "$status" >/out/status
