"""Wheels that were built from source distributions. One property: each is the work of one package's build alone.

FOLDER/HEX/NAME-….whl     HEX over the pin with its hashes, the Python, and the bound of what built it

See wheel_filling: source distributions are built one by one, each where nothing of the others is seen, so none can
answer for another. A wheel without compiled code serves all bounds: what built it has left no trace in it.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from swefactory.sandboxes.python27 import is_described

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(?:.*\\\n)*.*$", re.MULTILINE)
_NEEDED = (
    re.compile(r"[Ww]heels are required for `([A-Za-z0-9._-]+)`"),
    re.compile(r"([A-Za-z0-9._-]+)==\S+ has no (?:usable )?wheels"),
    re.compile(r"Hash mismatch for `([A-Za-z0-9._-]+)=="),  # its wheels are younger than the lock
)
_BOUND = re.compile(r"\A# exclude-newer: .*\n")
_PURE = "-none-any.whl"
_SOURCES = "src"  # uv's name for them
SPARED_S = 3600  # no environment takes longer to fill


@dataclass(frozen=True)
class Pin:
    """One package of a lock: its lines, with the hashes, under the lock's bound."""

    name: str
    bound: str
    lines: str

    @property
    def lock(self) -> str:
        """A lock of this package alone."""
        return f"{self.bound}{self.lines}\n"


@dataclass(frozen=True)
class KeptWheels:
    """Those below `folder`."""

    folder: Path

    def find(self, pin: Pin, version: str) -> Path | None:
        """The wheel that was built from the source distribution of `pin` for a Python version, if it stands."""
        for bound in ("", pin.bound):
            for wheel in (self.folder / _key(pin, version, bound)).glob("*.whl"):
                os.utime(wheel.parent)
                return wheel
        return None

    def keep(self, pin: Pin, version: str, uv_cache: Path) -> Path | None:
        """Takes the wheel of `pin` from a cache in which uv built nothing else and nobody is at work any more; None
        when there is not one plain file of that name."""
        found = [path for path in _files(uv_cache) if path.suffix == ".whl" and _is_of(path, pin)]
        if len(found) != 1:
            return None
        target = self.folder / _key(pin, version, "" if found[0].name.endswith(_PURE) else pin.bound)
        part = target.with_name(f".{secrets.token_hex(6)}.part")
        part.mkdir(parents=True)
        wheel = part / (_for_any(found[0].name) if is_described(version) else found[0].name)
        shutil.copyfile(found[0], wheel)
        for path in (self.folder, part, wheel):  # another user reads them, whatever our umask is
            path.chmod(0o755)
        try:
            part.rename(target)
        except OSError:  # somebody else was faster
            shutil.rmtree(part)
        return self.find(pin, version)

    def drop(self) -> int:
        """Removes those that nobody fills an environment with; the bytes that went."""
        n_bytes = 0
        for folder in self.folder.glob("*"):
            if time.time() - folder.stat().st_mtime > SPARED_S:
                n_bytes += _bytes_of(folder)
                shutil.rmtree(folder, ignore_errors=True)
        return n_bytes

    def n_bytes(self) -> int:
        """What they take on the disk."""
        return sum(_bytes_of(folder) for folder in self.folder.glob("*"))


def pins_of(lock: str) -> dict[str, Pin]:
    """The packages of a lock, by their canonical names."""
    found = _BOUND.match(lock)
    bound = found[0] if found else ""
    pins = [Pin(canonicalize_name(match[1]), bound, match[0]) for match in _PIN.finditer(lock)]
    return {pin.name: pin for pin in pins}


def lock_of(pins: Iterable[Pin]) -> str:
    """The lines of these packages, as a lock."""
    return "".join(f"{pin.lines}\n" for pin in pins)


def needed(said: str) -> str:
    """The package of which an install from wheels alone said that the lock has none; empty when it names none."""
    found = (pattern.search(" ".join(said.split())) for pattern in _NEEDED)
    return next((canonicalize_name(match[1]) for match in found if match), "")


def _files(folder: Path) -> Iterator[Path]:
    """Every plain file below it, not through links, nor in unpacked sources, where some builds leave a second wheel."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != _SOURCES]
        for name in names:
            if (path := Path(parent, name)).is_file() and not path.is_symlink():
                yield path


def _bytes_of(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # somebody else dropped it
        return sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    return 0


def _for_any(name: str) -> str:
    """uv holds that wheels for Python 2 alone fit no Python, nor binary ones this Python: see python27.py."""
    return "-".join([*name.split("-")[:2], f"py2.py3{_PURE}"])


def _is_of(wheel: Path, pin: Pin) -> bool:
    return canonicalize_name(wheel.name.split("-")[0]) == pin.name


def _key(pin: Pin, version: str, bound: str) -> str:
    return hashlib.sha256(f"{version}\n{bound}{pin.lines}".encode()).hexdigest()
