"""Files that wheels have in common. One property: what is equal in two of uv's unpacked wheels is one file on disk.

    STORE/archive-v*/ID    an unpacked wheel, uv's; gone through for good when its folder's time is SAME_TIME_S
    STORE/.content/HEX     a further name of each file in it, by content and mode

Most files of a release are those of the one before. Environments are filled from these files by hard links, and so get
the common one, whose time is one, too: byte code repeats the time of its source, and is shared then (kept_bytecode.py).
What uv writes anew into each environment is shared as well. A wheel's METADATA stays its own: by its names is told
whether an environment holds the wheel.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from swefactory.sandboxes.kept_bytecode import drop_unheld
from swefactory.sandboxes.kept_wheels import SPARED_S

SAME_TIME_S = 315_532_800  # 1980-01-01, the earliest that archives can name


@dataclass(frozen=True)
class SharedFiles:
    """Those of uv's cache at `store`."""

    store: Path

    def share(self, lib: Path) -> None:
        """Goes through the wheels that were unpacked since the last time, and through an environment's `lib` that was
        filled from them and in which nothing is compiled yet."""
        with self._alone():
            filled = {path.stat().st_ino: path for path in _files(lib)}
            for archive in self._archives():
                if archive.stat().st_mtime == SAME_TIME_S:
                    continue
                if self._share(archive, filled) or time.time() - archive.stat().st_mtime > SPARED_S:
                    _set_time(archive)
            for path in filled.values():
                if path.stat().st_nlink == 1:
                    self._make_common(path)

    def drop(self) -> int:
        """Removes wheels that no environment holds, and of their files what no other wheel has; the bytes that went."""
        if not self.store.exists():
            return 0
        n_bytes = 0
        with self._alone():
            for archive in self._archives():
                own = _own(archive)
                if not any(path.stat().st_nlink > 1 for path in ([own] if own else _files(archive))):
                    n_bytes += drop_unheld(_files(archive))
                    shutil.rmtree(archive, ignore_errors=True)
            return n_bytes + drop_unheld(_files(self._content))

    @property
    def _content(self) -> Path:
        return self.store / ".content"

    def _archives(self) -> list[Path]:
        return [path for path in self.store.glob("archive-v*/*") if path.is_dir() and not path.name.startswith(".")]

    def _share(self, archive: Path, filled: Mapping[int, Path]) -> bool:
        """Whether the wheel needs no second look: `filled` are the new environment's files by inode, and what others
        hold, too, is left alone, as their byte code may know its time."""
        is_whole = True
        own = _own(archive)
        if own is None:  # it is no wheel
            return is_whole
        for path in _files(archive):
            status = path.stat()
            if path == own or status.st_mtime == SAME_TIME_S:
                continue
            in_lib = filled.get(status.st_ino)
            if status.st_nlink > (1 if in_lib is None else 2):
                is_whole = False
                continue
            self._make_common(path, *([in_lib] if in_lib else []))
        return is_whole

    def _make_common(self, *names: Path) -> None:
        """A file with these names: it becomes the kept one of its content, or that takes its place."""
        _set_time(names[0])
        status = names[0].stat()
        if status.st_size == 0:
            return
        about = b"%o\0%b" % (status.st_mode, names[0].read_bytes())
        kept = self._content / hashlib.sha256(about).hexdigest()
        if not kept.exists():
            os.link(names[0], kept)
            return
        for name in names:
            self._put(kept, name)

    def _put(self, kept: Path, path: Path) -> None:
        """A link to `kept` in place of `path`, as long as `kept` may have more names."""
        beside = self._content / f".{secrets.token_hex(6)}"
        with suppress(OSError):
            os.link(kept, beside)
            beside.replace(path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._content.mkdir(parents=True, exist_ok=True)
        with (self.store / ".content.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _set_time(path: Path) -> None:
    """One for all environments."""
    os.utime(path, (SAME_TIME_S, SAME_TIME_S))


def _own(archive: Path) -> Path | None:
    return next(archive.glob("*.dist-info/METADATA"), None)


def _files(folder: Path) -> Iterator[Path]:
    """Every plain file below, not through links."""
    pending = [folder]
    while pending:
        for entry in list(os.scandir(pending.pop())):
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
