"""Which package index uv's and pip's own settings name. One property: they are read, never guessed.

The first wins: UV_DEFAULT_INDEX, UV_INDEX_URL, uv's files, PIP_INDEX_URL, pip's files. An address may hold
credentials; `bare` takes them out for messages.
"""

import configparser
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def configured_index() -> str | None:
    """The address of the default index, "https://host/simple"; None where nothing names one."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if value := os.environ.get(name, "").strip():
            return re.sub(r"^[\w.-]+=(?=\w+://)", "", value)  # UV_DEFAULT_INDEX may name it: "mine=https://…"
    return next(_in_uv_files(), None) or pip_index()


def pip_index() -> str | None:
    """The index that pip's settings name."""
    if named := os.environ.get("PIP_INDEX_URL"):
        return named
    user = (Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf")
    shared = (Path(sys.prefix) / "pip.conf", "/etc/xdg/pip/pip.conf", "/etc/pip.conf")
    for place in (os.environ.get("PIP_CONFIG_FILE", ""), *user, *shared):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(place)
        except configparser.Error:
            continue
        if index := parser.get("global", "index-url", fallback="").strip():
            return index
    return None


def certificates() -> str | None:
    """The file of certificates that pip or the system were told of, for servers that a private authority signs for."""
    names = ("REQUESTS_CA_BUNDLE", "PIP_CERT", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
    return next((value for name in names if (value := os.environ.get(name)) and Path(value).exists()), None)


def bare(address: str) -> str:
    """`address` without credentials, for messages and logs."""
    return re.sub(r"(://)[^/@\s]+@", r"\1", address)


def _in_uv_files() -> Iterator[str]:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for path in (os.environ.get("UV_CONFIG_FILE", ""), config / "uv/uv.toml", "/etc/uv/uv.toml"):
        try:
            found = tomllib.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        except (OSError, ValueError):  # uv itself says what is wrong with it
            continue
        if index := _default(found) or _default(_table(found.get("pip"))):
            yield index


def _default(settings: dict[str, Any]) -> str:
    indexes = settings.get("index")
    for index in indexes if isinstance(indexes, list) else []:
        if _table(index).get("default") is True and isinstance(url := index.get("url"), str):
            return url
    url = settings.get("index-url")
    return url if isinstance(url, str) else ""


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
