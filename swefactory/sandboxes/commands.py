"""Runs one host process to its end. Two properties: kept output never passes the cap, and nothing outlives the call.

Stdout and stderr are one pipe, so their order is the order of writing. Of more output than the cap the first and
the last half are kept, with one line between them that counts what was left out; the rest is read and dropped, so a
command that floods its output is slowed by nothing and fills nothing.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import CommandResult

_CHUNK_BYTES = 64 * 1024
_DRAIN_S = 1.0  # how long output may still come after the process has ended


@dataclass(frozen=True)
class Stop:
    """Why a watcher ends a command early. `note` becomes the last line of its output."""

    note: str
    out_of_memory: bool = False


class CappedOutput:
    """Keeps the head and the tail of a stream of bytes within `cap_bytes`."""

    def __init__(self, cap_bytes: int) -> None:
        self._head_room = cap_bytes - cap_bytes // 2
        self._tail_room = cap_bytes // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._n_tail = 0
        self.dropped_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Takes the next bytes of the stream."""
        room = self._head_room - len(self._head)
        self._head += chunk[:room]
        if rest := chunk[room:]:
            self._tail.append(rest)
            self._n_tail += len(rest)
            while self._n_tail - len(self._tail[0]) >= self._tail_room:
                self._drop(len(self._tail[0]))

    def value(self) -> bytes:
        """What was kept, in order."""
        if self._n_tail > self._tail_room:
            self._drop(self._n_tail - self._tail_room)
        gap = f"\n[... {self.dropped_bytes} bytes left out ...]\n".encode() if self.dropped_bytes else b""
        return bytes(self._head) + gap + b"".join(self._tail)

    def _drop(self, n_bytes: int) -> None:
        first = self._tail.popleft()
        if n_bytes < len(first):
            self._tail.appendleft(first[n_bytes:])
        self._n_tail -= n_bytes
        self.dropped_bytes += n_bytes


def run_command(
    argv: Sequence[str],
    *,
    timeout_s: float,
    output_bytes: int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    pass_fds: Sequence[int] = (),
    on_start: Callable[[int], None] | None = None,
    kill: Callable[[], None] | None = None,
    watch: Callable[[], Stop | None] | None = None,
    watch_interval_s: float = 0.25,
) -> CommandResult:
    """Runs `argv` in its own process group; `env` None inherits ours.

    `on_start` is handed the process id. `kill` is called before the process group is killed, when time is up, when
    `watch` answers with a Stop (asked every `watch_interval_s`) or when this call itself is interrupted: it ends what
    a group cannot reach, such as a process in a container. Raises InfrastructureError when `argv[0]` cannot start.
    """
    started = time.monotonic()
    process = _start(argv, env, cwd, pass_fds)
    output = CappedOutput(output_bytes)
    timed_out, stop = False, None
    try:
        if on_start is not None:
            on_start(process.pid)
        timed_out, stop = _pump(process, stdin, output, started + timeout_s, watch, watch_interval_s)
    finally:
        if kill is not None and not _has_ended(process):
            kill()
        _kill_group(process)
        _close(process)
    if stop is not None:
        output.add(f"\n[{stop.note}]\n".encode())
    kept = output.value()
    return CommandResult(
        exit_code=None if timed_out else _exit_code(process.returncode),
        output=kept,
        duration_s=time.monotonic() - started,
        timed_out=timed_out,
        truncated=output.dropped_bytes > 0,
        out_of_memory=stop is not None and stop.out_of_memory,
        stopped=stop is not None,
    )


def _start(
    argv: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None, pass_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        message = f"cannot start {argv[0]}: {error.strerror}; is it installed and executable?"
        raise InfrastructureError(message) from error
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        # A command that becomes another user may still open its /dev/stdin and /dev/stdout by name. No one else can
        # reach a pipe: the way through /proc is open to those alone who may trace the process.
        os.fchmod(stream.fileno(), 0o666)
    return process


def _pump(
    process: subprocess.Popen[bytes],
    stdin: bytes,
    output: CappedOutput,
    deadline: float,
    watch: Callable[[], Stop | None] | None,
    watch_interval_s: float,
) -> tuple[bool, Stop | None]:
    """Moves bytes until the process ends, the deadline passes or a watcher stops it: (timed out, the stop)."""
    assert process.stdin is not None
    assert process.stdout is not None
    pending = memoryview(stdin)
    next_watch = time.monotonic() + watch_interval_s
    drain_until: float | None = None
    is_open = True
    with selectors.DefaultSelector() as selector:
        os.set_blocking(process.stdout.fileno(), False)
        selector.register(process.stdout, selectors.EVENT_READ)
        if pending:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        else:
            process.stdin.close()
        while True:
            now = time.monotonic()
            ended = _has_ended(process)
            if ended and drain_until is None:
                _signal_group(process)  # what it left in the background would hold the pipe open
                drain_until = now + _DRAIN_S
            if ended and (not is_open or now >= (drain_until or now)):
                return False, None
            if now >= deadline:
                return not ended, None
            if watch is not None and now >= next_watch:
                if stop := watch():
                    return False, stop
                next_watch = time.monotonic() + watch_interval_s
            if not is_open and not ended:  # it closed its output and goes on: nothing wakes us but its end
                time.sleep(0.005)
            for key, _ in selector.select(0 if not is_open else min(deadline - now, 0.05)):
                if key.fileobj is process.stdin:
                    pending = _feed(process, selector, pending)
                elif not _take(process, output):
                    selector.unregister(process.stdout)
                    is_open = False


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    # Without reaping it: a zombie leader keeps its group's id, so the kill of the group cannot meet a stranger.
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _feed(process: subprocess.Popen[bytes], selector: selectors.BaseSelector, pending: memoryview) -> memoryview:
    assert process.stdin is not None
    try:
        pending = pending[os.write(process.stdin.fileno(), pending[:_CHUNK_BYTES]) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:  # it does not read its input: its own choice
        pending = pending[:0]
    if not pending:
        selector.unregister(process.stdin)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    return pending


def _take(process: subprocess.Popen[bytes], output: CappedOutput) -> bool:
    """Reads what is there; False at the end of the stream."""
    assert process.stdout is not None
    try:
        chunk = os.read(process.stdout.fileno(), _CHUNK_BYTES)
    except BlockingIOError:
        return True
    output.add(chunk)
    return bool(chunk)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _exit_code(returncode: int) -> int:
    return 128 - returncode if returncode < 0 else returncode
