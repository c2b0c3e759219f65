"""Lays out what a docker build is handed of this machine. One property: all of it is mounted, none of it stays.

CONTEXT/host/settings.env     package index settings without credentials, as shell assignments
CONTEXT/host/files/N/…        certificates and small folders the settings name
CONTEXT/host/sources.list     where this machine takes Debian's packages from; absent: the image's own
CONTEXT/index.env, uv.toml    settings with credentials, handed on as secrets; see images/python-env.Dockerfile
"""

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from swefactory.errors import UsageError
from swefactory.sandboxes.index_settings import network_settings

_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_FOLDER_BYTES = 32 * 2**20  # a larger folder, such as a local index, is not sent to the engine
_APT = Path("/etc/apt")


def lay_out(context: Path, suite: str, given: Path | None = None) -> None:
    """Writes all of it below `context`; copies it where another machine has laid it out at `given`, for the builds of
    processes in containers."""
    if given is not None:
        if not (given / "host" / "settings.env").is_file():
            raise UsageError(f"{given} holds no settings of builds; `swefactory images bootstrap --cluster` makes them")
        shutil.copytree(given, context, dirs_exist_ok=True)
        return
    host = context / "host"
    (host / "files").mkdir(parents=True, exist_ok=True)
    _write_settings(host / "settings.env", host, with_secrets=False)
    _write_settings(context / "index.env", host, with_secrets=True)
    if lines := debian_sources(suite):
        (host / "sources.list").write_text("".join(f"{line}\n" for line in lines))


def apt_options(context: Path) -> str:
    """Options that make apt use what `lay_out` wrote."""
    options = ["-o APT::Sandbox::User=root"]
    if (context / "host" / "sources.list").exists():
        options += ["-o Dir::Etc::SourceList=/host/sources.list", "-o Dir::Etc::SourceParts=-"]
    if (context / "host" / "files" / "system.crt").exists():
        options.append("-o Acquire::https::CAInfo=/host/files/system.crt")
    return " ".join(options)


def debian_sources(suite: str) -> list[str]:
    """One-line sources of `suite`, its updates and its security updates, as this machine has them; may be empty."""
    found: list[str] = []
    for address, name in _sources():
        base = name.removesuffix("-updates").removesuffix("-security").split("/")[0]
        line = f"deb {address} {name} main"
        if (
            base == suite
            and urlsplit(address).path.rstrip("/").endswith(("debian", "debian-security"))
            and line not in found
        ):
            found.append(line)
    return found


def debian_address(suite: str) -> str | None:
    """Where this machine takes `suite` from."""
    return next((line.split()[1] for line in debian_sources(suite) if line.split()[2] == suite), None)


def _sources() -> Iterator[tuple[str, str]]:
    """(address, suite) of apt's files, both formats."""
    for path in [_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*.list"))]:
        for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
            if found := re.match(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)", line):
                yield found[1], found[2]
    for path in sorted((_APT / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(errors="replace")):
            fields = dict(re.findall(r"^([\w-]+):\s*(.*)$", stanza, re.MULTILINE))
            for address in fields.get("URIs", "").split():
                yield from ((address, suite) for suite in fields.get("Suites", "").split())


def _write_settings(path: Path, host: Path, *, with_secrets: bool) -> None:
    network = network_settings(with_secrets=with_secrets)
    settings = dict(network.env)
    config = next((mount.source for mount in network.mounts if mount.target.endswith("/uv/uv.toml")), None)
    if config is not None and with_secrets:
        shutil.copyfile(config, path.with_name("uv.toml"))
        settings["UV_CONFIG_FILE"] = "/run/uv.toml"
    elif config is not None:
        settings["UV_CONFIG_FILE"] = str(config)
    if _SYSTEM_CERTIFICATES.exists():
        shutil.copyfile(_SYSTEM_CERTIFICATES, host / "files" / "system.crt")
        settings.setdefault("SSL_CERT_FILE", str(_SYSTEM_CERTIFICATES))
    lines = [f"export {name}={shlex.quote(value)}" for name, value in _moved(settings, host).items()]
    path.write_text("".join(f"{line}\n" for line in sorted(lines)))
    path.chmod(0o600 if with_secrets else 0o644)


def _moved(settings: Mapping[str, str], host: Path) -> dict[str, str]:
    """The settings with every file of this machine replaced by its copy; a path that cannot be sent goes."""
    moved = {}
    for name, value in settings.items():
        if name == "SSL_CERT_DIR":  # the bundle beside it says the same
            continue
        words = [_sent(word, host) for word in re.split(r"\s+", value.strip())]
        if kept := " ".join(word for word in words if word):
            moved[name] = kept
    return moved


def _sent(word: str, host: Path) -> str:
    """The word for use inside a build; empty where it names what is not sent."""
    is_address = word.startswith("file://")
    source = Path(urlsplit(word).path if is_address else word)
    if not source.is_absolute() or word == "/run/uv.toml":
        return word
    if not source.exists() or (source.is_dir() and _size(source) > _FOLDER_BYTES):
        return ""
    name = "-".join(source.parts[1:]) or "root"
    target = host / "files" / name
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, symlinks=False, ignore_dangling_symlinks=True)
    else:
        shutil.copyfile(source, target)
    return f"{'file://' if is_address else ''}/host/files/{name}"


def _size(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(where, name)).st_size for name in names)
        if total > _FOLDER_BYTES:
            break
    return total
