"""The Protocols behind which environments and sandboxes live, and the values that cross them; pure, as `protocols`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class EnvironmentSpec:
    """What a sandbox needs to materialise an environment. Equal digests are the same environment."""

    digest: str  # sha256:… over the three fields below, see recipes.lock.digest_of
    python_version: str
    lock: str  # requirements file with hashes, no download addresses; complete: install without dependencies. A first
    # line "# exclude-newer: TIME" says that source distributions are in it: TIME bounds what builds them, not the lock
    system_packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Bounds of a sandbox; each command also has its own time limit."""

    memory_bytes: int = 4 * 2**30
    n_processes: int = 512
    n_cpus: float = 2.0
    file_bytes: int = 2 * 2**30  # one file
    disk_bytes: int = 4 * 2**30  # the whole writable part
    output_bytes: int = 8 * 2**20  # kept of one command's output; the rest is read and dropped


KILLED = 128 + 9  # the exit code of what SIGKILL ended


@dataclass(frozen=True)
class CommandResult:
    """How a command ended. `output` is stdout and stderr in their order, capped (head and tail are kept)."""

    exit_code: int | None  # None when it was killed for time; 128+n for signal n
    output: bytes
    duration_s: float
    timed_out: bool = False
    truncated: bool = False
    out_of_memory: bool = False
    stopped: bool = False  # by a bound of ours other than time; `output` ends with which

    @property
    def was_killed(self) -> bool:
        """Ended by SIGKILL that was none of ours, as far as can be told: a command may kill itself."""
        return self.exit_code == KILLED and not (self.timed_out or self.out_of_memory or self.stopped)


@dataclass(frozen=True)
class Materialised:
    """An environment that stands ready. `built` is False when it was there already."""

    locator: str
    size_bytes: int
    duration_s: float
    built: bool
    log: str = ""
    unique_bytes: int = 0  # of size_bytes, what would be free without it
    shared_bytes: int = 0  # of size_bytes, what other environments or a cache hold as well


@dataclass(frozen=True)
class StoredEnvironment:
    """One environment on disk. `shared_bytes` are held by others or by a cache too, `unique_bytes` by it alone."""

    digest: str
    locator: str
    unique_bytes: int
    shared_bytes: int
    last_used_at: datetime
    is_in_use: bool


@dataclass(frozen=True)
class DiskUse:
    """What a kind of sandbox keeps on disk; each byte of `total_bytes` counted once, however many names it has."""

    environments: tuple[StoredEnvironment, ...]
    cache_bytes: int  # of the total, what can go without any environment going
    base_bytes: int  # of the total, what every environment needs: base and interpreter images
    total_bytes: int


class EnvironmentStore(Protocol):
    """What a kind of sandbox keeps on disk, and how it goes."""

    def disk_use(self) -> DiskUse:
        """Looked at anew each time."""
        ...

    def evict(self, digest: str) -> bool:
        """Removes one environment; False when it is in use or not there."""
        ...

    def drop_caches(self) -> int:
        """Removes what no environment holds and can be fetched again; the bytes that went."""
        ...


@dataclass(frozen=True)
class UvRun:
    """How one run of uv ended: all it said is the result's output. `written` is the file it was to write, None when
    no plain file is there. Where packages were built, their code could have changed both: `built`."""

    result: CommandResult
    written: bytes | None
    built: bool


class RunUv(Protocol):
    """SandboxBackend.run_uv, for those who need no more of a sandbox."""

    def __call__(
        self,
        arguments: Sequence[str],
        *,
        files: Mapping[str, str],
        writes: str,
        python_version: str,
        timeout_s: float,
    ) -> UvRun: ...


@dataclass(frozen=True)
class SandboxSpec:
    """What to open. The tree at `checkout` is copied to CHECKOUT_DIR (writable), `project` to PROJECT_DIR and
    `inputs` to INPUTS_DIR (both read-only inside). Nothing else of the host but the system's programs is visible."""

    environment: EnvironmentSpec
    checkout: Path
    project: Path | None = None
    inputs: Path | None = None
    limits: Limits = Limits()
    label: str = ""  # "<job>.<fence>", for sweeps
    is_online: bool = False  # with a network that leads out, never to this machine or its neighbours; see no_network


CHECKOUT_DIR = "/testbed"
ENVIRONMENT_DIR = "/opt/env"  # a virtual environment; PYTHON is its interpreter
PROJECT_DIR = "/opt/project"  # static metadata of the project under test, added to sys.path by the environment
INPUTS_DIR = "/opt/inputs"  # ours, read-only: the pytest plugin, test ids
RESULTS_DIR = "/opt/results"  # writable, outside the tree: what the plugin writes
PYTHON = f"{ENVIRONMENT_DIR}/bin/python"


class Sandbox(Protocol):
    """A live, isolated place to run commands: no network unless it is opened with one, no secrets, non-root. Its own
    processes end with it."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: str = CHECKOUT_DIR,
        stdin: bytes = b"",
    ) -> CommandResult:
        """Runs to the end or the time limit; everything it started is killed then. The environment is a fixed
        minimal one plus `env`. Raises InfrastructureError when the sandbox itself fails."""
        ...

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Writes one file (parents made) as the sandbox's user. Absolute path inside."""
        ...

    def read(self, path: str, max_bytes: int = 64 * 2**20) -> bytes:
        """Reads one regular file. Raises FileNotFoundError, or InfrastructureError if it is larger."""
        ...

    def shell_argv(self) -> list[str]:
        """A host argv that starts an interactive bash inside, at CHECKOUT_DIR, on the caller's own pty. Raises
        InfrastructureError when none can begin any more."""
        ...

    def violation(self) -> str | None:
        """Which limit what runs inside has broken, so that the sandbox is of no more use, in one sentence: its disk is
        over, its processes or memory leave no room for another command. None: none; a fault has another cause."""
        ...


class SandboxBackend(Protocol):
    """One kind of sandbox."""

    name: str

    def probe(self) -> str | None:
        """None when it can isolate untrusted code here, else one sentence: why not, and what to do."""
        ...

    def no_network(self) -> str | None:
        """Why no sandbox can be opened online here, in one sentence; None when one can."""
        ...

    def pythons(self) -> Mapping[str, str]:
        """The interpreters it can offer, "3.9" -> where it comes from."""
        ...

    def materialise(self, spec: EnvironmentSpec) -> Materialised:
        """Makes the environment unless it stands already; safe to call twice, also at once, and after a crash.
        Raises Rejected(BUILD_FAILED | NO_INTERPRETER | SYSTEM_PACKAGE_MISSING), SandboxUnavailable,
        InfrastructureError."""
        ...

    def run_uv(
        self,
        arguments: Sequence[str],
        *,
        files: Mapping[str, str],
        writes: str,
        python_version: str,
        timeout_s: float,
    ) -> UvRun:
        """Runs `uv ARGUMENTS` in a folder that holds `files` (name -> text), with the network and the host's index
        settings, for the interpreter of `python_version`; cache and interpreter are the sandbox's to add. Where it
        must build a package, that code sees no secret, nothing of the host and no cache of another run. Answers with
        what the file `writes` holds then. Raises Rejected(NO_INTERPRETER), SandboxUnavailable, InfrastructureError."""
        ...

    def open(self, spec: SandboxSpec) -> AbstractContextManager[Sandbox]:
        """A fresh sandbox; materialises the environment when it is missing. Gone when the context ends."""
        ...

    def sweep(self, live: Callable[[str], bool]) -> int:
        """Removes what dead owners left behind: each labelled thing for which live(label) is false; a count."""
        ...


class KeepingBackend(SandboxBackend, EnvironmentStore, Protocol):
    """A kind of sandbox whose environments lie on this machine."""
