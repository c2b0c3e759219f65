"""Worker processes that are killed and come back. One property: only processes that were started here, and what they
started, are ever sent a signal: each carries this run's mark in its environment.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_MARK = "SWEFACTORY_CHAOS_MARK"
_MORTAL = ("setpriv", "--pdeathsig", "KILL")  # a test that is killed leaves no worker behind
_WITNESSED = ("-m", "tests.chaos.witness")
EMBEDDED = ("swefactory", "run", "--watch")
SPAWNING = (*EMBEDDED, "-j", "2")
BEAT = ("celery", "-A", "workers.app", "beat", "--loglevel", "ERROR")


def celery(name: str, queues: str) -> tuple[str, ...]:
    """Two processes for jobs, below one that receives hints."""
    quiet = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")
    return ("celery", "-A", "workers.app", "worker", "-n", f"{name}@chaos", "-c", "2", "-Q", queues, *quiet)


@dataclass
class Workers:
    """One process for each of `commands`, each in a session of its own. `more` goes into the environment of those
    started from now on."""

    commands: tuple[tuple[str, ...], ...]
    environment: dict[str, str]
    log: Path
    mark: str
    more: dict[str, str] = field(default_factory=dict)
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)  # by the command's place
    stopped: dict[int, float] = field(default_factory=dict)  # process id -> when it goes on
    dazed: set[int] = field(default_factory=set)  # who went on, perhaps with a job that is another's by now

    def respawn(self) -> None:
        """Starts what is not running."""
        for place, command in enumerate(self.commands):
            process = self.running.get(place)
            if process is None or process.poll() is not None:
                environment = {**self.environment, **self.more, _MARK: self.mark}
                with self.log.open("ab") as log:
                    self.running[place] = subprocess.Popen(
                        [*_MORTAL, sys.executable, *_WITNESSED, *command], cwd=ROOT, env=environment,
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    )  # fmt: skip

    def mains(self, of: tuple[str, ...] = ()) -> list[int]:
        """The processes that were started here, or those of one command."""
        return [p.pid for place, p in self.running.items()
                if p.poll() is None and (not of or self.commands[place] == of)]  # fmt: skip

    def doers(self) -> list[int]:
        """Who does jobs: the processes of Celery's pools, those that `run -j` spawned, and embedded runs themselves;
        not one that is still starting, of whose death nobody could learn anything."""
        found = []
        for place, process in list(self.running.items()):  # the observer asks while they are being started
            command = self.commands[place]
            if process.poll() is None and command == EMBEDDED:
                found.append(process.pid)
            elif process.poll() is None and command != BEAT:
                found += children_of(process.pid)
        return [pid for pid in found if _has_started(pid)]

    def tools(self) -> list[int]:
        """What those who do jobs have started: git, mostly."""
        waiting, found = self.doers(), set[int]()
        while waiting:
            children = set(children_of(waiting.pop())) - found
            found |= children
            waiting += children
        return sorted(found - set(self.doers()))

    def kill(self, pid: int) -> None:
        self.stopped.pop(pid, None)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for process in self.running.values():
            if process.pid == pid:
                process.wait(30)

    def stop(self, pid: int, for_s: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.stopped[pid] = time.monotonic() + for_s
            self.dazed.add(pid)

    def let_go_on(self, *, everyone: bool = False) -> None:
        for pid, until in list(self.stopped.items()):
            if everyone or time.monotonic() > until:
                del self.stopped[pid]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def orphans(self) -> dict[int, bytes]:
        """Processes with the mark that none of the running ones has started, and what they are."""
        known, waiting = set(self.mains()), self.mains()
        while waiting:
            children = set(children_of(waiting.pop())) - known
            known |= children
            waiting += children
        return {pid: _command_of(pid) for pid in self._marked() if pid not in known}

    def end(self) -> None:
        """Whatever carries the mark; returns when all have ended, and what they held is let go."""
        while marked := self._marked():
            for pid in marked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for process in self.running.values():
            process.wait(30)

    def _marked(self) -> list[int]:
        wanted = f"{_MARK}={self.mark}".encode()
        return [pid for pid in _pids() if wanted in _read(pid, "environ").split(b"\0")]


def _has_started(pid: int) -> bool:
    """It holds the folder of its temporary files."""
    with contextlib.suppress(OSError):
        return any("/cache/temporary/" in os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def children_of(pid: int) -> list[int]:
    return [int(child) for child in _read(pid, f"task/{pid}/children").split()]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command_of(pid: int) -> bytes:
    return _read(pid, "cmdline").replace(b"\0", b" ")


def _read(pid: int, name: str) -> bytes:
    """Empty for a process that has ended meanwhile."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
