"""Folders that only their process has a use for. One property: what a killed process left is told from what a living
one works in, however long it has been working or stopped, and is removed.

    PARENT/RANDOM.lock    locked while the process lives; made first, removed last
    PARENT/RANDOM/        what it works in
"""

import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def held_folder(parent: Path) -> Iterator[Path]:
    """An empty folder, gone when its context ends or, at the latest, with the next `sweep` after its process died."""
    parent.mkdir(parents=True, exist_ok=True)
    path, lock = _locked_name(parent)
    with lock:
        try:
            path.mkdir(mode=0o700)
            yield path
        finally:
            _remove(path)


def sweep(parent: Path) -> int:
    """Removes what dead processes held below `parent`; returns how many folders."""
    n_removed = 0
    for path in sorted(parent.glob("*.lock")):
        with _opened(path) as lock:
            if _is_ours(lock, path, fcntl.LOCK_NB):
                _remove(path.with_suffix(""))
                n_removed += 1
    return n_removed


@contextmanager
def own_temporary_files(parent: Path) -> Iterator[None]:
    """Python's temporary files of this process, ours and libraries', are made in a folder below `parent` meanwhile:
    those that are named would otherwise stay in the machine's for ever when it is killed."""
    before = tempfile.tempdir
    with held_folder(parent) as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


def _locked_name(parent: Path) -> tuple[Path, IO[bytes]]:
    while True:
        path = parent / secrets.token_hex(8)
        lock = _opened(path.with_suffix(".lock"))
        if _is_ours(lock, path.with_suffix(".lock")):
            return path, lock
        lock.close()


def _opened(path: Path) -> IO[bytes]:
    return path.open("ab")


def _is_ours(lock: IO[bytes], path: Path, how: int = 0) -> bool:
    """Takes the lock; False when another has it, or when it was of a file that a sweep has removed in between."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | how)
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():  # folders that were locked against their owner
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(path)], capture_output=True, timeout=600, check=False)
        shutil.rmtree(path, ignore_errors=True)
    path.with_suffix(".lock").unlink(missing_ok=True)
