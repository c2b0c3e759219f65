"""A process on a pseudoterminal of ours, and the screen text its output makes. Imports nothing of OpenHands.

One property: whatever the process writes, the screen stays below a fixed size, and its beginning and end are kept;
OpenHands finds a command's start and end by prompts that stand there.
"""

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence

_ROWS, _COLUMNS = 50, 160
_HEAD_BYTES, _TAIL_BYTES = 64 * 2**10, 192 * 2**10
_CHUNK_BYTES = 64 * 2**10
_POLL_S = 0.1
_WRITE_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 3.0

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, bracketed paste
    r"|\x1b[\]PX^_][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)"  # OSC and other strings, with their end
    r"|\x1b[ -/]*[0-~]"  # two-character sequences
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def screen_text(raw: bytes) -> str:
    """What a reader would see: no escape sequences, no control characters, lines overwritten by a progress bar gone."""
    text = raw.decode("utf-8", errors="replace")
    text = _ESCAPES.sub("", text).replace("\r\r\n", "\n").replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROLS.sub("", text)


class Screen:
    """Output since the last clear, as a head and a tail; what lay between is dropped and counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._head = bytearray()
        self._tail = bytearray()
        self._n_dropped = 0
        self._text: str | None = ""

    def add(self, chunk: bytes) -> None:
        """Appends output; safe from another thread."""
        with self._lock:
            room = max(0, _HEAD_BYTES - len(self._head))
            self._head += chunk[:room]
            self._tail += chunk[room:]
            if len(self._tail) > 2 * _TAIL_BYTES:
                self._drop()
            self._text = None

    def _drop(self) -> None:
        n_over = len(self._tail) - _TAIL_BYTES
        self._n_dropped += n_over
        del self._tail[:n_over]

    def text(self) -> str:
        """The screen as text, computed once for each change."""
        with self._lock:
            if self._text is None:
                if self._n_dropped:
                    note = f"\n[… {self._n_dropped} bytes of output were dropped here …]\n".encode()
                    self._text = screen_text(bytes(self._head)) + screen_text(note + bytes(self._tail))
                else:
                    self._text = screen_text(bytes(self._head + self._tail))
            return self._text

    def raw(self) -> bytes:
        """What is kept of the output, as it came."""
        with self._lock:
            return bytes(self._head + self._tail)

    def put_before(self, earlier: bytes) -> None:
        """Places earlier output in front of this screen's."""
        with self._lock:
            later = bytes(self._head + self._tail)
            self._head, self._tail, self._n_dropped = bytearray(), bytearray(), 0
        self.add(earlier)
        self.add(later)

    def keep_from(self, marker: bytes) -> None:
        """Forgets everything before the last `marker`; everything when there is none."""
        with self._lock:
            whole = bytes(self._head + self._tail)
            start = whole.rfind(marker)
            self._head = bytearray(whole[start:] if start >= 0 else b"")
            self._tail = bytearray()
            self._n_dropped = 0
            self._text = None


class PtyProcess:
    """A child on a pseudoterminal of ours; its output goes to `screen`. A controlling terminal is its own affair: the
    sandbox gives its shell one, as that shell may live behind another pseudoterminal or an engine."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], screen: Screen) -> None:
        self._screen = screen
        self._master, slave = pty.openpty()
        try:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
            self._process = subprocess.Popen(
                ["env", "--default-signal=INT,QUIT", *argv],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=dict(env),
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        os.set_blocking(self._master, False)
        self._reader = threading.Thread(target=self._read, name="sandbox-terminal", daemon=True)
        self._closing = threading.Event()
        self.ended = threading.Event()  # set after the last byte of output is on the screen
        self._reader.start()

    def write(self, data: bytes) -> None:
        """Types `data`. Raises TimeoutError when nobody takes it for a while, OSError when the process has ended."""
        until = time.monotonic() + _WRITE_TIMEOUT_S
        while data:
            if self.ended.is_set():
                raise OSError(errno.EIO, "the shell has ended")
            if select.select([], [self._master], [], _POLL_S)[1]:
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self._master, data[:1024]) :]
                    continue
            if time.monotonic() > until:
                raise TimeoutError("the program in the terminal does not read its input")

    def close(self) -> int:
        """Ends the process and its terminal; its exit code, negative for a signal. Safe to call twice.

        First as a user would: C-c, C-\\, hang up. docker keeps a command alive whose client is killed."""
        if not self._closing.is_set():
            for key in (b"\x03", b"\x1c"):
                with contextlib.suppress(OSError):
                    os.write(self._master, key)
            self._closing.set()
            if threading.current_thread() is not self._reader:
                self._reader.join(2)
            os.close(self._master)
        for end in (None, signal.SIGHUP, signal.SIGKILL):
            if end is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(_END_TIMEOUT_S)
        return self._process.wait()

    def _read(self) -> None:
        try:
            while not self._closing.is_set():
                if select.select([self._master], [], [], _POLL_S)[0]:
                    chunk = os.read(self._master, _CHUNK_BYTES)
                    if not chunk:
                        return
                    self._screen.add(chunk)
                elif self._process.poll() is not None:
                    return
        except OSError:  # EIO: the last holder of the other side is gone
            return
        finally:
            self.ended.set()
