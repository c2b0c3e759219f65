#!/bin/sh
# Installs git, docker's client and buildx: docker-client.sh APT-OPTION…. Debian 12 has the last two not as packages of
# their own; those of Debian 13 need nothing that 12 lacks, so that their programs are taken out.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get "$@" -q update
if apt-cache "$@" show docker-buildx >/dev/null 2>&1; then
  apt-get "$@" -q install -y --no-install-recommends git ca-certificates docker-cli docker-buildx
  exit
fi
apt-get "$@" -q install -y --no-install-recommends git ca-certificates
mkdir -p /tmp/lists/partial /tmp/archives/partial /tmp/out
sed -n 's/ bookworm main$/ trixie main/p' /host/sources.list >/tmp/sources.list
set -- "$@" -o Dir::Etc::SourceList=/tmp/sources.list -o Dir::State::Lists=/tmp/lists -o Dir::Cache::Archives=/tmp/archives
cd /tmp
apt-get "$@" -q update
apt-get "$@" -q download docker-cli docker-buildx
for package in /tmp/*.deb; do dpkg-deb -x "$package" /tmp/out; done
install -m 755 /tmp/out/usr/bin/docker /usr/bin/docker
install -D -m 755 /tmp/out/usr/libexec/docker/cli-plugins/docker-buildx /usr/libexec/docker/cli-plugins/docker-buildx
docker --version
docker buildx version
