"""Control groups, where this process may make them. One property: a group is used only after a process was seen in it.

Version 1 (one hierarchy a controller) and version 2 (one for all) are both spoken. Where neither can be written, as for
most ordinary users, the sandbox falls back to resource limits and a watchdog, see watchdogs.py.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swefactory.sandbox_protocols import Limits

_ROOT = Path("/sys/fs/cgroup")
_FOLDER = "swefactory"
_CPU_PERIOD_US = 100_000


@dataclass(frozen=True)
class Group:
    """One sandbox's groups: a single folder in version 2, one a controller in version 1."""

    folders: tuple[Path, ...]
    has_memory: bool

    @property
    def procs(self) -> tuple[str, ...]:
        """The files a process writes its id to."""
        return tuple(str(folder / "cgroup.procs") for folder in self.folders)

    def n_oom_kills(self) -> int:
        """How often the kernel has killed in this group for want of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    fields = dict(line.split() for line in (folder / name).read_text().splitlines())
                    return int(fields.get("oom_kill", 0))
        return 0

    def n_tasks(self) -> int:
        """Processes and threads in it now; 0 where they are not counted."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                return int((folder / "pids.current").read_text())
        return 0

    def remove(self, timeout_s: float = 5) -> None:
        """Kills what is in it and removes it. What cannot be removed is left for a sweep."""
        deadline = time.monotonic() + timeout_s
        for folder in self.folders:
            while folder.exists():
                _kill(folder)
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.02)


def make_group(name: str, limits: Limits) -> Group | None:
    """A group with these limits, or None where it cannot be had."""
    for make in (_make_v2, _make_v1):
        with contextlib.suppress(OSError):
            group = make(name, limits)
            if group is not None and _admits(group):
                return group
            if group is not None:
                group.remove()
    return None


def find_group(name: str) -> Group:
    """The group that a sandbox of this name made, with whatever folders of it are still there."""
    places = [_ROOT / _FOLDER, *(_ROOT / controller / _FOLDER for controller in ("memory", "pids", "cpu"))]
    return Group(tuple(place / name for place in places if (place / name).is_dir()), has_memory=False)


def _make_v2(name: str, limits: Limits) -> Group | None:
    controllers = _ROOT / "cgroup.controllers"
    if not controllers.exists() or not {"memory", "pids"} <= set(controllers.read_text().split()):
        return None
    parent = _ROOT / _FOLDER
    parent.mkdir(exist_ok=True)
    wanted = [c for c in ("memory", "pids", "cpu") if c in controllers.read_text().split()]
    for folder in (_ROOT, parent):
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in wanted))
    folder = parent / name
    folder.mkdir()
    (folder / "memory.max").write_text(str(limits.memory_bytes))
    with contextlib.suppress(OSError):  # no swap compiled in: nothing to bound
        (folder / "memory.swap.max").write_text("0")
    (folder / "pids.max").write_text(str(_n_tasks(limits)))
    if "cpu" in wanted:
        (folder / "cpu.max").write_text(f"{int(limits.n_cpus * _CPU_PERIOD_US)} {_CPU_PERIOD_US}")
    return Group((folder,), has_memory=True)


def _make_v1(name: str, limits: Limits) -> Group | None:
    memory = limits.memory_bytes
    settings: dict[str, Sequence[tuple[str, int]]] = {
        # memsw includes swap and may be absent; it can only be set after, and not below, the first.
        "memory": (("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory)),
        "pids": (("pids.max", _n_tasks(limits)),),
        "cpu": (("cpu.cfs_quota_us", int(limits.n_cpus * _CPU_PERIOD_US)),),
    }
    folders: list[Path] = []
    for controller, values in settings.items():
        folder = _ROOT / controller / _FOLDER / name
        try:
            folder.mkdir(parents=True)
            for file, value in values:
                if (folder / file).exists():
                    (folder / file).write_text(str(value))
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        folders.append(folder)
    if not folders:
        return None
    return Group(tuple(folders), has_memory=any(folder.parts[-3] == "memory" for folder in folders))


def _n_tasks(limits: Limits) -> int:
    return limits.n_processes + 8  # the isolating program's own; the exact bound is RLIMIT_NPROC inside


def _admits(group: Group) -> bool:
    """Whether a process of ours may move there: the files may be writable and the move still be forbidden."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            for procs in group.procs:
                Path(procs).write_text(str(process.pid))
        except OSError:
            return False
        finally:
            process.kill()
    return True


def _kill(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for line in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(line), 9)
