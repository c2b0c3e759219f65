# What pip is told of this machine's package indexes. The version stands for the history that a clone would have had.
. /host/settings.env
[ ! -f /run/index.env ] || . /run/index.env
[ -z "${UV_DEFAULT_INDEX:-}" ] || export PIP_INDEX_URL="$UV_DEFAULT_INDEX"
[ -z "${SSL_CERT_FILE:-}" ] || export PIP_CERT="$SSL_CERT_FILE"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
SETUPTOOLS_SCM_PRETEND_VERSION=$(cat /pip/version)
export SETUPTOOLS_SCM_PRETEND_VERSION PBR_VERSION="$SETUPTOOLS_SCM_PRETEND_VERSION"
install() { /opt/env/bin/python -m pip install --quiet "$@"; }
if [ -f /pip/by_uv ]; then
  export UV_CACHE_DIR=/cache UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
  install() { /opt/uv/uv pip install --quiet --python /opt/env/bin/python "$@"; }
fi
cd /testbed
