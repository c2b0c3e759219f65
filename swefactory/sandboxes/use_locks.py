"""Says which environments are in use and when they last were. One property: a crash lets go.

FOLDER/.HEX.use     held shared, as a lock, while a sandbox of HEX is open or HEX is built; its time is the last use
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class UseLocks:
    """Among all threads and processes of this machine that work with `folder`."""

    folder: Path

    @contextlib.contextmanager
    def used(self, digest: str) -> Iterator[None]:
        """Keeps an environment from being removed; also before it is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._path(digest).open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            os.utime(file.fileno())
            yield

    @contextlib.contextmanager
    def unused(self, digest: str) -> Iterator[bool]:
        """True, and nobody begins to use it meanwhile; False when somebody does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._path(digest).open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def is_used(self, digest: str) -> bool:
        """Whether somebody uses it now."""
        if not self._path(digest).exists():
            return False
        with self.unused(digest) as free:
            return not free

    def last_used_at(self, digest: str, otherwise: datetime) -> datetime:
        """`otherwise` where it was never noted."""
        with contextlib.suppress(FileNotFoundError):
            return datetime.fromtimestamp(self._path(digest).stat().st_mtime, UTC)
        return otherwise

    def _path(self, digest: str) -> Path:
        return self.folder / f".{digest.removeprefix('sha256:')}.use"
