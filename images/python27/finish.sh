#!/bin/sh
# Makes what uv filled an environment that Python 2.7 takes for an installation of its own: finish.sh PROGRAM FOLDER.
# 2.7 knows no pyvenv.cfg; it looks for its library beside its program. So the program is copied and each part of the
# library linked, save the packages, which are the environment's.
set -eu
program=$(readlink -f "$1")
env=$2
prefix=$(dirname "$(dirname "$program")")
rm -f "$env"/lib/python2.7/site-packages/_virtualenv.* # uv's, in the syntax of Python 3
rm -f "$env"/bin/python "$env"/bin/python2 "$env"/bin/python2.7
cp "$program" "$env/bin/python2.7"
ln -s python2.7 "$env/bin/python"
ln -s python2.7 "$env/bin/python2"
mkdir -p "$env/include"
ln -s "$prefix/include/python2.7" "$env/include/python2.7"
for part in "$prefix"/lib/python2.7/*; do
  [ "${part##*/}" = site-packages ] || ln -s "$part" "$env/lib/python2.7/${part##*/}"
done
