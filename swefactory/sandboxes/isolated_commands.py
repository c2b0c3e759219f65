"""Runs one isolated command to its end. One property: when the call returns, nothing the command started is alive.

The first process of the command's own process namespace ends after all others there, so its end is waited for, not
bubblewrap's, which comes earlier.
"""

import contextlib
import os
import re
import secrets
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import CommandResult
from swefactory.sandboxes.commands import Stop, run_command
from swefactory.sandboxes.files_inside import last_line
from swefactory.sandboxes.isolation import Isolated, Owner, write_plan
from swefactory.sandboxes.user_network import user_network
from swefactory.sandboxes.watchdogs import FullDisk, disk_watch, memory_watch

_END_TIMEOUT_S = 15


def run_isolated(
    folder: Path, command: Isolated, who: Owner, *, timeout_s: float, watched: Sequence[Path], stdin: bytes = b""
) -> CommandResult:
    """Runs `command`, its plan kept in `folder`, which it must not see; `watched` is what its disk limit counts.
    Raises InfrastructureError when the sandbox, not the command, fails, and when the disk was full meanwhile: programs
    stumble over that in their own words, or go on with half a file."""
    n_kills = command.group.n_oom_kills() if command.group else 0
    plan, disk = folder / f"run-{secrets.token_hex(4)}.json", FullDisk(folder)
    with user_network(command.network in ("user", "closed")) as network, _Init() as init:
        gate = None if network is None else network.gate_fd
        argv = write_plan(plan, command, who, status=init.status_fd, gate=gate)

        def started(pid: int) -> None:
            init.started(pid)
            if network is not None and init.pid is not None:
                network.attach(init.pid, closed=command.network == "closed")

        try:
            result = run_command(
                argv,
                timeout_s=timeout_s,
                output_bytes=command.limits.output_bytes,
                env={},
                stdin=stdin,
                pass_fds=(init.status_fd,) if gate is None else (init.status_fd, gate),
                on_start=started,
                kill=init.kill,
                watch=_watch(command, watched, init, disk),
            )
        finally:
            init.end()
            plan.unlink(missing_ok=True)
            disk.look()
    if disk.was_seen:
        raise InfrastructureError(f"the disk of {folder} was full while a sandbox's command ran; make room there")
    if init.exit_code is None and not (result.timed_out or init.is_killed or _oom(command, n_kills)):
        raise InfrastructureError(f"a sandbox's command did not start ({folder.name}): {last_line(result)}")
    return replace(result, out_of_memory=result.out_of_memory or _oom(command, n_kills))


def _oom(command: Isolated, n_before: int) -> bool:
    return command.group is not None and command.group.n_oom_kills() > n_before


def _watch(command: Isolated, watched: Sequence[Path], init: "_Init", disk: FullDisk) -> Callable[[], Stop | None]:
    watches = [disk_watch(watched, lambda: init.pid, command.limits)]
    if command.group is None or not command.group.has_memory:
        watches.append(memory_watch(lambda: init.pid, command.limits))

    def watch() -> Stop | None:
        disk.look()
        return next((stop for each in watches if (stop := each())), None)

    return watch


class _Init:
    """The first process of a command's own process namespace, as bubblewrap reports it: with it everything ends."""

    def __init__(self) -> None:
        self._read_fd, self.status_fd = os.pipe()
        self._pidfd = -1
        self._said = b""
        self.pid: int | None = None
        self.is_killed = False

    def __enter__(self) -> "_Init":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._read_fd, self.status_fd, self._pidfd):
            if descriptor >= 0:
                os.close(descriptor)

    def started(self, _: int) -> None:
        """Waits until bubblewrap has named the process; a launcher that fails closes the pipe instead."""
        os.close(self.status_fd)
        self.status_fd = -1
        self._listen(_END_TIMEOUT_S, until=b"\n")
        if found := re.search(rb'"child-pid"\s*:\s*(\d+)', self._said):
            self.pid = int(found[1])
            with contextlib.suppress(ProcessLookupError):
                self._pidfd = os.pidfd_open(self.pid)

    def kill(self) -> None:
        """Ends everything in the namespace."""
        self.is_killed = True
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def end(self) -> None:
        """Waits until the kernel has ended every process of the namespace, then reads what bubblewrap said last."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            if not select.select([self._pidfd], [], [], _END_TIMEOUT_S)[0]:
                raise InfrastructureError(f"process {self.pid} of a sandbox does not end; see its state in /proc")
        if self.status_fd < 0:
            self._listen(_END_TIMEOUT_S, until=None)

    @property
    def exit_code(self) -> int | None:
        """What the command ended with; None when it never began or was killed from outside."""
        found = re.search(rb'"exit-code"\s*:\s*(\d+)', self._said)
        return int(found[1]) if found else None

    def _listen(self, timeout_s: float, until: bytes | None) -> None:
        deadline = time.monotonic() + timeout_s
        while until is None or until not in self._said:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._read_fd], [], [], left)[0]:
                return
            chunk = os.read(self._read_fd, 4096)
            if not chunk:
                return
            self._said += chunk
