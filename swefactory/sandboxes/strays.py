"""What a killed bubblewrap left half started. One property: who still has the process that started it is left alone.

bubblewrap 0.8 lets the first process of a sandbox wait until its user namespace is prepared; only then does that one
ask to die with bubblewrap. Where bubblewrap is killed in between, it would wait for ever, and nothing of ours names it:
it has no environment, and the folder of its sandbox is known by the files alone that it was handed.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

_STARTER = "bwrap"


def strays(cache: Path) -> Iterator[int]:
    """A descriptor for each such process that holds a file below `cache`; it is closed when the next is asked for."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text().strip() != _STARTER:
                continue
            process = os.pidfd_open(int(entry.name))  # first: what is read below is of this very process
            try:
                if not _has_starter(entry) and _holds(entry, cache):
                    yield process
            finally:
                os.close(process)


def end_strays(cache: Path) -> int:
    """Ends them; how many there were."""
    n_ended = 0
    for process in strays(cache):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
            n_ended += 1
    return n_ended


def _has_starter(entry: Path) -> bool:
    """Each command's bubblewrap leads a session of its own, see commands.py."""
    session = (entry / "stat").read_text().rpartition(")")[2].split()[3]
    return Path(f"/proc/{session}").exists()


def _holds(entry: Path, folder: Path) -> bool:
    return any(Path(os.readlink(held)).is_relative_to(folder) for held in (entry / "fd").iterdir())
