"""The environments of the namespace sandbox on disk. One property: a file with many names is counted once.

    CACHE/environments/HEX          an environment, see venvs.py
    CACHE/environments/.HEX.lock    held by whoever builds or removes it; .HEX.use: see use_locks.py

Environments share files with uv's cache, and so with each other, by hard links: a file is an environment's own only
when all its names are in it.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from swefactory.sandbox_protocols import DiskUse, StoredEnvironment
from swefactory.sandboxes.kept_answers import KeptAnswers
from swefactory.sandboxes.kept_bytecode import KeptByteCode
from swefactory.sandboxes.kept_extensions import KeptExtensions
from swefactory.sandboxes.kept_wheels import KeptWheels
from swefactory.sandboxes.shared_files import SharedFiles
from swefactory.sandboxes.use_locks import UseLocks


@dataclass(frozen=True)
class VenvStore:
    """Environments below `folder`, filled from uv's cache at `store`; `others` are folders of further caches."""

    folder: Path
    store: Path
    others: tuple[Path, ...]
    extensions: KeptExtensions

    @property
    def answers(self) -> KeptAnswers:
        """What the resolver said before."""
        return KeptAnswers(self.folder.with_name("answers"))

    @property
    def locks(self) -> UseLocks:
        """Which of them are in use."""
        return UseLocks(self.folder)

    def disk_use(self) -> DiskUse:
        """See EnvironmentStore."""
        seen: dict[tuple[int, int], int] = {}
        stored = tuple(self._stored(path, seen) for path in sorted(self.folder.glob("[0-9a-f]*")) if path.is_dir())
        n_environments = sum(seen.values())
        for folder in (self.store, *self.others):
            _measure(folder, seen)
        total = sum(seen.values()) + self.extensions.n_bytes() + self.answers.n_bytes()
        return DiskUse(stored, cache_bytes=total - n_environments, base_bytes=0, total_bytes=total)

    def evict(self, digest: str) -> bool:
        """See EnvironmentStore."""
        target = self.folder / digest.removeprefix("sha256:")
        if target == self.folder:  # an empty digest names none, not all
            return False
        with self.locks.unused(digest) as is_free, target.with_name(f".{target.name}.lock").open("a+b") as lock:
            if not is_free:
                return False
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if not target.exists():
                return False
            gone = self.folder / f".gone-{secrets.token_hex(6)}"
            target.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def drop_caches(self) -> int:
        """See EnvironmentStore. Unpacked packages that no environment holds, which uv fetches again, and built
        extension modules."""
        n_bytes = self.extensions.drop() + self.answers.drop() + KeptWheels(self.store / ".wheels").drop()
        return n_bytes + KeptByteCode(self.store / ".bytecode").drop() + SharedFiles(self.store).drop()

    def sweep(self) -> None:
        """Removes what an eviction that was interrupted left."""
        for left in self.folder.glob(".gone-*"):
            shutil.rmtree(left, ignore_errors=True)

    def size(self, digest: str) -> tuple[int, int]:
        """(unique, shared) bytes of one environment."""
        found = self._stored(self.folder / digest.removeprefix("sha256:"), {})
        return found.unique_bytes, found.shared_bytes

    def _stored(self, path: Path, seen: dict[tuple[int, int], int]) -> StoredEnvironment:
        files: dict[tuple[int, int], int] = {}
        shared = _measure(path, files)
        seen |= files
        made_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return StoredEnvironment(
            digest=f"sha256:{path.name}",
            locator=str(path),
            unique_bytes=sum(files.values()) - shared,
            shared_bytes=shared,
            last_used_at=self.locks.last_used_at(path.name, made_at),
            is_in_use=self.locks.is_used(path.name),
        )


def _measure(folder: Path, files: dict[tuple[int, int], int]) -> int:
    """Adds what lies below `folder`, by inode, to `files`; answers with the bytes of files that have further names
    outside it."""
    names: dict[tuple[int, int], int] = {}
    shared: dict[tuple[int, int], int] = {}
    pending = [os.fspath(folder)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                key = (status.st_dev, status.st_ino)
                files[key] = status.st_blocks * 512
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
                elif status.st_nlink > 1:
                    names[key] = names.get(key, 0) + 1
                    shared[key] = status.st_nlink
    return sum(files[key] for key, n_links in shared.items() if n_links > names[key])
