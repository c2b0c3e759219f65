"""The host's package index settings, for a build. One property: no more of the host than those settings is shown.

uv's variables and files go through as they are; pip's index is taken where uv has none, so that a machine behind a
mirror that was told to pip alone works too.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from swefactory.package_indexes import bare, pip_index
from swefactory.sandboxes.isolation import Mount

_PASSED = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX|EXTRA_INDEX|FIND_LINKS|INSECURE_HOST|HTTP|SSL|NATIVE_TLS|SYSTEM_CERTS|OFFLINE|REQUEST|"
    r"CONCURRENT|KEYRING|CONFIG_FILE|NO_CONFIG).*"
    r"|SSL_CERT_(FILE|DIR)|SSL_CLIENT_CERT|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_CERT"
    r"|(HTTPS?|ALL|NO)_PROXY|(https?|all|no)_proxy"
)
_SECRET = re.compile(r"PASSWORD|TOKEN|USERNAME|KEYRING|CLIENT_CERT", re.IGNORECASE)
_RESOLVER = ("resolv.conf", "hosts", "nsswitch.conf", "host.conf", "gai.conf")


@dataclass(frozen=True)
class NetworkSettings:
    """Variables and files that a build with network needs."""

    env: Mapping[str, str]
    mounts: tuple[Mount, ...]


def network_settings(*, with_secrets: bool) -> NetworkSettings:
    """Read anew each time. Without secrets, credentials of an index are left out, also those in its URL."""
    env = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    if not any(name.startswith(("UV_INDEX", "UV_DEFAULT_INDEX")) for name in env) and (index := pip_index()):
        env["UV_DEFAULT_INDEX"] = index
    if not with_secrets:
        env = {name: bare(value) for name, value in env.items() if not _SECRET.search(name)}
    files = [Mount(Path(f"/etc/{name}").resolve(), f"/etc/{name}") for name in _RESOLVER]
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "uv" / "uv.toml"
    if with_secrets or (config.is_file() and not re.search(r"://[^/\s\"']*@", config.read_text(errors="replace"))):
        files += [Mount(config.resolve(), "/tmp/.config/uv/uv.toml")]  # noqa: S108 - HOME of a build, inside
    files += [Mount(Path("/etc/uv/uv.toml"), "/etc/uv/uv.toml")]
    files += [Mount(path, str(path)) for value in env.values() for path in _local_paths(value)]
    return NetworkSettings(env, tuple(mount for mount in files if mount.source.exists()))


def _local_paths(value: str) -> Iterator[Path]:
    """Files and folders a value names; those of the system are shown anyway."""
    for word in re.split(r"[\s,]+", value):
        path = Path(urlsplit(word).path if word.startswith("file://") else word)
        if path.is_absolute() and path.exists() and not path.is_relative_to("/usr"):
            yield path
