"""What the kernel does not bound here, watched from outside. One property: reads only, and never follows a link.

Used by a running command's loop: disk always (no quota can be counted on), memory where no control group was had.
"""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swefactory.sandbox_protocols import Limits
from swefactory.sandboxes.commands import Stop

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ROOM_BYTES = 2**20  # with less, what is written fails, or soon will
_SHARE = 10  # at most one part in ten of the time goes into measuring


def disk_watch(folders: Sequence[Path], pid: Callable[[], int | None], limits: Limits) -> Callable[[], Stop | None]:
    """Stops a command when what lies in `folders`, or is open and deleted below `pid`, passes the limit."""
    not_before = 0.0

    def watch() -> Stop | None:
        nonlocal not_before
        started = time.monotonic()
        if started < not_before:
            return None
        root = pid()
        used = sum(disk_usage(folder) for folder in folders) + (_deleted(_tree(root)) if root else 0)
        not_before = time.monotonic() + _SHARE * (time.monotonic() - started)
        if used <= limits.disk_bytes:
            return None
        return Stop(f"stopped: it wrote more than the sandbox's disk limit of {limits.disk_bytes} bytes")

    return watch


def memory_watch(pid: Callable[[], int | None], limits: Limits) -> Callable[[], Stop | None]:
    """Stops a command when `pid` and its descendants together hold more memory than the limit."""

    def watch() -> Stop | None:
        root = pid()
        if root is None or sum(_resident(each) for each in _tree(root)) <= limits.memory_bytes:
            return None
        # Pages shared after a fork were counted once a process; the exact count is dear, so it comes second.
        if sum(_proportional(each) for each in _tree(root)) <= limits.memory_bytes:
            return None
        note = f"stopped: it used more than the sandbox's memory limit of {limits.memory_bytes} bytes"
        return Stop(note, out_of_memory=True)

    return watch


@dataclass
class FullDisk:
    """Whether the file system of `folder` was full at any of the moments at which it was looked at."""

    folder: Path
    was_seen: bool = False

    def look(self) -> None:
        """Now. A folder that is gone, with a sandbox that others have swept, tells nothing."""
        with contextlib.suppress(FileNotFoundError):
            status = os.statvfs(self.folder)
            self.was_seen |= status.f_bavail * status.f_frsize < _ROOM_BYTES


def disk_usage(folder: Path) -> int:
    """Bytes on disk below `folder`; files that vanish meanwhile or cannot be looked at count nothing."""
    total = 0
    pending = [os.fspath(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    total += status.st_blocks * 512
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
        except OSError:
            continue
    return total


def _deleted(pids: set[int]) -> int:
    """Bytes of files that no folder names any more but a process holds open."""
    sizes: dict[tuple[int, int], int] = {}
    for pid in pids:
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                status = os.stat(f"/proc/{pid}/fd/{descriptor}")
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def _tree(root: int) -> set[int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except OSError:
        return _resident(pid)
