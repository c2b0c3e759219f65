"""Watches a sandbox's disk while it has shells. One property: what a shell writes is bounded as what a run writes is.

A run is watched by whoever waits for it, see watchdogs.py; for a shell nobody waits. Over the limit, every shell of the
sandbox ends and none begins any more: a file removed meanwhile does not mend that.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import Limits
from swefactory.sandboxes.watchdogs import disk_usage

SHELL_PLANS = "shell-*.json"  # a shell ends by itself when its plan is gone, see launcher.py
_PAUSE_S = 0.5
_SHARE = 10  # at most one part in ten of the time goes into measuring


class ShellGuard:
    """Of one open sandbox: `folder` holds the plans of its shells, `watched` is what its disk limit counts."""

    def __init__(self, folder: Path, watched: Sequence[Path], limits: Limits) -> None:
        self._folder, self._watched, self._limits = folder, watched, limits
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_over = False

    @contextlib.contextmanager
    def until_closed(self) -> Iterator["ShellGuard"]:
        """Its thread, if there is one, ends with the context."""
        try:
            yield self
        finally:
            self._ended.set()
            if self._thread is not None:
                self._thread.join()

    def admit(self) -> None:
        """A shell is about to begin. Raises InfrastructureError when none may any more."""
        if self._is_over:
            raise InfrastructureError(f"no shell begins in the sandbox {self._folder.name}: {self._said()}")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"disk of {self._folder.name}", daemon=True)
            self._thread.start()

    def violation(self) -> str | None:
        """What was broken, in one sentence; looks at the disk anew."""
        return self._said() if self._is_over or self._used() > self._limits.disk_bytes else None

    def _work(self) -> None:
        pause_s = _PAUSE_S
        while not self._ended.wait(pause_s):
            started = time.monotonic()
            if self._used() > self._limits.disk_bytes:
                self._is_over = True
                for plan in self._folder.glob(SHELL_PLANS):
                    plan.unlink(missing_ok=True)
                return
            pause_s = max(_PAUSE_S, _SHARE * (time.monotonic() - started))

    def _used(self) -> int:
        return sum(disk_usage(folder) for folder in self._watched)

    def _said(self) -> str:
        return f"it wrote more than the sandbox's disk limit of {self._limits.disk_bytes} bytes"
