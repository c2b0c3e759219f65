"""A Redis, a PostgreSQL and a disk of a test's own, to be broken. One property: no other server or disk is touched."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis
from sqlalchemy import create_engine, text

from tests.conftest import _absent, _not_root, free_port

_CLOCK = Path(__file__).parent.parent.parent / "swefactory" / "inputs" / "swefactory_clock.c"
_FILLER = "filler"


@dataclass
class Server:
    """A process that comes back on its port after it was killed; what it kept depends on its command."""

    command: list[str]
    folder: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        self._process = subprocess.Popen(
            self.command, cwd=self.folder, env={**os.environ, **self.environment}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait(60)


@contextlib.contextmanager
def own_redis(folder: Path) -> Iterator[Server]:
    """In memory alone: killed, it comes back empty."""
    program = shutil.which("redis-server")
    if program is None:
        _absent("Redis", "no redis-server on PATH (Debian: apt install redis-server)")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = Server(command, folder, f"redis://127.0.0.1:{port}/0")
    server.start()
    try:
        _wait_for(lambda: bool(redis.Redis.from_url(server.url).ping()))
        yield server
    finally:
        server.stop(signal.SIGKILL)


@contextlib.contextmanager
def own_postgres() -> Iterator[Server]:
    """SIGQUIT is its "immediate" shutdown: it comes back through recovery from its log."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    initdb = str(folders[-1] / "initdb") if folders else shutil.which("initdb")
    if initdb is None:
        _absent("PostgreSQL", "no initdb found (Debian: apt install postgresql)")
    with tempfile.TemporaryDirectory(prefix="swefactory-pg-") as name:  # pytest's folders are closed to its user
        folder, port = Path(name), free_port()
        prefix = _not_root(folder)
        made = [*prefix, initdb, "-D", f"{name}/data", "-U", "swefactory", "-A", "trust", "-N"]
        subprocess.run(made, check=True, capture_output=True, timeout=120)
        command = [*prefix, str(Path(initdb).with_name("postgres")), "-D", f"{name}/data", "-p", str(port)]
        url = f"postgresql+psycopg://swefactory@127.0.0.1:{port}/postgres"
        server = Server([*command, "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"], folder, url)
        server.start()
        try:
            _wait_for(lambda: _answers(url))
            yield server
        finally:
            server.stop(signal.SIGQUIT)


def _answers(url: str) -> bool:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return bool(connection.execute(text("SELECT 1")).scalar())
    finally:
        engine.dispose()


def _wait_for(answers: Callable[[], bool], timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(Exception):
            if answers():
                return
        assert time.monotonic() < until, "a server of this test did not start"
        time.sleep(0.1)


@contextlib.contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[bool]:
    """`folder` on a file system of this size in memory; False, and a plain folder, for who may mount nothing."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes},mode=755", "swefactory-chaos", str(folder)]
    is_mounted = os.getuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def fill(disk: Path) -> None:
    """Takes what is left, to the last byte."""
    with (disk / _FILLER).open("ab") as file:
        with contextlib.suppress(OSError):
            while free := shutil.disk_usage(disk).free:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)


def empty(disk: Path) -> None:
    (disk / _FILLER).unlink(missing_ok=True)


def clock_library(folder: Path) -> Path | None:
    """The clock of ours that is off by SWEFACTORY_CLOCK_SHIFT_S; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    target = folder / "clock.so"
    made = [compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(_CLOCK), "-ldl", "-lpthread"]
    subprocess.run(made, check=True, capture_output=True, timeout=120)
    target.chmod(0o755)
    return target
