"""Runs one command in a container over the engine's API. One property: the command starts only when we listen.

The engine sends both outputs of a command in frames: a byte of kind, three of nothing, four of length, then bytes.
Bytes that came together with the answer's headers would be lost in the client's buffer; so the supervisor in the
container waits for one byte of input first (see images/supervise.c).
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from swefactory.errors import InfrastructureError
from swefactory.sandboxes.commands import CappedOutput
from swefactory.sandboxes.docker_engine import Engine

SUPERVISE = "/opt/swefactory/supervise"
_GO = b"\n"
_HEADER_BYTES = 8
_CHUNK_BYTES = 64 * 1024
_TICK_S = 0.25
_END_S = 10.0  # how long the engine may take to tell the exit code once the output has ended


@dataclass(frozen=True)
class Ended:
    """`exit_code` None when the stream did not end within the time."""

    exit_code: int | None
    duration_s: float


def execute(
    engine: Engine,
    container_id: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    stdin: bytes,
    timeout_s: float,
    give_up_s: float,
    output: CappedOutput,
    is_stopped: Callable[[], bool],
) -> Ended:
    """Runs `argv` under the supervisor, which ends it after `timeout_s`; stops listening after `give_up_s` or when
    `is_stopped`. Raises InfrastructureError when the engine or the container fails."""
    api = engine.api
    with engine.faults(f"run a command in the container {container_id[:12]}"):
        made = api.exec_create(
            container_id,
            [SUPERVISE, f"{timeout_s:.3f}", *argv],
            stdin=True,
            environment=dict(env),
            workdir=cwd,
            user="1000:1000",
        )
        started = time.monotonic()
        stream = api.exec_start(made["Id"], socket=True)
        try:
            raw: socket.socket = getattr(stream, "_sock", stream)
            raw.setblocking(False)
            is_complete = _pump(raw, _GO + stdin, output, started + give_up_s, is_stopped)
        finally:
            _close(stream)
        exit_code = _exit_code(engine, made["Id"]) if is_complete else None
    return Ended(exit_code, time.monotonic() - started)


def _pump(
    raw: socket.socket, pending: bytes, output: CappedOutput, deadline: float, is_stopped: Callable[[], bool]
) -> bool:
    """Moves bytes both ways until the stream ends (True), the deadline or a stop (False)."""
    frames = _Frames(output)
    to_send: memoryview | None = memoryview(pending)
    while (left := deadline - time.monotonic()) > 0 and not is_stopped():
        readable, writable, _ = select.select([raw], [raw] if to_send is not None else [], [], min(left, _TICK_S))
        if readable:
            try:
                chunk = raw.recv(_CHUNK_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                return True
            frames.add(chunk)
        if writable and to_send is not None:
            to_send = _send(raw, to_send)
    return False


def _send(raw: socket.socket, to_send: memoryview) -> memoryview | None:
    """What is left to send; None once the end of input was told."""
    try:
        to_send = to_send[raw.send(to_send[:_CHUNK_BYTES]) :]
    except BlockingIOError:
        return to_send
    except (BrokenPipeError, ConnectionResetError):  # it does not read its input: its own choice
        return None
    if to_send:
        return to_send
    with contextlib.suppress(OSError):
        raw.shutdown(socket.SHUT_WR)
    return None


class _Frames:
    """Takes the stream apart and hands on what the command wrote."""

    def __init__(self, output: CappedOutput) -> None:
        self._output = output
        self._header = b""
        self._left = 0

    def add(self, chunk: bytes) -> None:
        while chunk:
            if self._left:
                self._output.add(chunk[: self._left])
                taken = min(self._left, len(chunk))
                self._left -= taken
            else:
                taken = min(_HEADER_BYTES - len(self._header), len(chunk))
                self._header += chunk[:taken]
                if len(self._header) == _HEADER_BYTES:
                    self._left = int.from_bytes(self._header[4:], "big")
                    self._header = b""
            chunk = chunk[taken:]


def _exit_code(engine: Engine, exec_id: str) -> int:
    deadline = time.monotonic() + _END_S
    while time.monotonic() < deadline:
        said = engine.api.exec_inspect(exec_id)
        if not said["Running"] and said["ExitCode"] is not None:
            return int(said["ExitCode"])
        time.sleep(0.02)
    raise InfrastructureError(f"the engine does not say how the command {exec_id[:12]} ended; see its log")


def _close(stream: IO[bytes]) -> None:
    # The answer first: it flushes a file that the stream would have closed. A connection that is gone is closed.
    for each in (getattr(stream, "_response", None), stream):
        if each is not None:
            with contextlib.suppress(OSError, ValueError):
                each.close()
