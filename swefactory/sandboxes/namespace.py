"""The namespace sandbox: no daemon, not necessarily root. One property: it isolates, or it refuses.

    CACHE/environments/HEX/          one environment: env/ (a virtual environment) and environment.json, see venvs.py
    CACHE/sandboxes/LABEL~RANDOM/    one open sandbox: what is writable inside, and the plans of its commands

Each command runs in namespaces of its own that end with it; what lasts between commands are the folders of the sandbox.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from swefactory.errors import InfrastructureError, SandboxUnavailable
from swefactory.protocols import (
    CHECKOUT_DIR,
    ENVIRONMENT_DIR,
    INPUTS_DIR,
    PROJECT_DIR,
    RESULTS_DIR,
    CommandResult,
    EnvironmentSpec,
    Materialised,
    Sandbox,
    SandboxSpec,
)
from swefactory.sandboxes.commands import Stop, run_command
from swefactory.sandboxes.groups import Group, find_group, make_group
from swefactory.sandboxes.interpreters import Interpreter, find_interpreters
from swefactory.sandboxes.isolation import HOME_DIR, USER_ID, Isolated, Mount, Owner, obstacle, owner, write_plan
from swefactory.sandboxes.venvs import Venvs, hidden_packages
from swefactory.sandboxes.watchdogs import disk_watch, memory_watch

_WRITABLE = {"testbed": CHECKOUT_DIR, "results": RESULTS_DIR, "tmp": "/tmp", "home": "/home"}  # noqa: S108
_ETC = {
    "passwd": f"root:x:0:0::/nonexistent:/usr/sbin/nologin\nsandbox:x:{USER_ID}:{USER_ID}::{HOME_DIR}:/bin/bash\n",
    "group": f"root:x:0:\nsandbox:x:{USER_ID}:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "hostname": "sandbox\n",
}
_FILE_TIMEOUT_S = 120
_END_TIMEOUT_S = 15


class NamespaceBackend:
    """Sandboxes of Linux namespaces, with virtual environments made by uv. Safe to share between threads."""

    name = "namespace"

    def __init__(
        self,
        cache_dir: Path,
        *,
        extra_interpreter_folders: Sequence[str] = (),
        build_timeout_s: float = 1800,
        uv_cache: Path | None = None,
    ) -> None:
        self._cache = cache_dir.resolve()
        self._extra_folders = tuple(extra_interpreter_folders)
        self._venvs = Venvs(self._cache, (uv_cache or self._cache / "uv").resolve(), build_timeout_s)
        self._lock = threading.Lock()
        self._interpreters: dict[str, Interpreter] | None = None
        self._is_able = False

    def probe(self) -> str | None:
        """None when it can isolate here, else why not and what to do. Tries a sandbox; a success is remembered."""
        if self._is_able:
            return None
        why = obstacle(self._cache / "sandboxes")
        self._is_able = why is None
        return why

    def pythons(self) -> Mapping[str, str]:
        """"3.9" -> the interpreter's path. Looked for once."""
        return {version: str(found.path) for version, found in self._found().items()}

    def materialise(self, spec: EnvironmentSpec) -> Materialised:
        """See SandboxBackend. The locator is the environment's folder."""
        self._require()
        return self._venvs.materialise(spec, self._found())

    @contextlib.contextmanager
    def _open(self, spec: SandboxSpec) -> Iterator[Sandbox]:
        self._require()
        environment = Path(self.materialise(spec.environment).locator)
        folder = self._cache / "sandboxes" / f"{_safe(spec.label)}~{secrets.token_hex(6)}"
        group = make_group(folder.name, spec.limits)
        try:
            with owner() as who:
                _furnish(folder, spec, who)
                mounts, hidden = _mounts(folder, spec, environment)
                wanted = Isolated((), mounts, spec.limits, hidden=hidden, group=group)
                yield NamespaceSandbox(folder, wanted, who)
        finally:
            _remove(folder, group)

    def open(self, spec: SandboxSpec) -> AbstractContextManager[Sandbox]:
        """See SandboxBackend. Raises SandboxUnavailable where nothing can be isolated."""
        return self._open(spec)

    def sweep(self, live: Callable[[str], bool]) -> int:
        """Removes the folders, processes and control groups of sandboxes whose owner is dead, and broken builds."""
        n_removed = 0
        for folder in sorted((self._cache / "sandboxes").glob("*~*")):
            label = folder.name.rpartition("~")[0]
            if label and not live(label):
                _remove(folder, find_group(folder.name))
                n_removed += 1
        self._venvs.sweep()
        return n_removed

    def _require(self) -> None:
        if why := self.probe():
            raise SandboxUnavailable(f"untrusted code cannot be isolated here: {why}")

    def _found(self) -> dict[str, Interpreter]:
        with self._lock:
            if self._interpreters is None:
                self._interpreters = find_interpreters(self._extra_folders)
            return self._interpreters


@dataclass(frozen=True)
class NamespaceSandbox:
    """One open sandbox: its folders on the host and what every command of it shares."""

    folder: Path
    wanted: Isolated
    who: Owner

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: str = CHECKOUT_DIR,
        stdin: bytes = b"",
    ) -> CommandResult:
        """See Sandbox."""
        command = replace(self.wanted, argv=tuple(argv), env=dict(env or {}), cwd=cwd)
        return self._run(command, timeout_s, stdin)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """See Sandbox. Done inside, as the sandbox's user: a link there leads nowhere here."""
        argv = ("/usr/bin/install", "-D", f"--mode={mode:o}", "--", "/dev/stdin", path)
        result = self._run(replace(self.wanted, argv=argv, cwd="/"), _FILE_TIMEOUT_S, content)
        if result.exit_code != 0:
            raise InfrastructureError(f"cannot write {path} in the sandbox: {_last_line(result)}")

    def read(self, path: str, max_bytes: int = 64 * 2**20) -> bytes:
        """See Sandbox. Done inside; a pipe or a device is refused before it is opened."""
        show = ("-printf", r"%s\n", "-size", f"-{max_bytes + 1}c", "-exec", "/bin/cat", "{}", ";")
        argv = ("/usr/bin/find", "-L", path, "-maxdepth", "0", "-type", "f", *show)
        limits = replace(self.wanted.limits, output_bytes=2 * max_bytes + 65536)
        result = self._run(replace(self.wanted, argv=argv, cwd="/", limits=limits), _FILE_TIMEOUT_S, b"")
        size, _, content = result.output.partition(b"\n")
        if result.exit_code == 1:
            raise FileNotFoundError(f"{path} is not in the sandbox, or not readable: {_last_line(result)}")
        if not size.isdigit():
            raise InfrastructureError(f"cannot read {path} in the sandbox: not a regular file")
        if int(size) > max_bytes or result.truncated:
            raise InfrastructureError(f"{path} has {int(size)} bytes, more than the {max_bytes} that may be read")
        return content

    def shell_argv(self) -> list[str]:
        """See Sandbox. The shell's terminal is one of its own; it ends when the sandbox closes."""
        argv = ("/usr/bin/setsid", "--ctty", "--wait", "/bin/bash", "--norc", "--noprofile", "-i")
        plan = self.folder / f"shell-{secrets.token_hex(4)}.json"
        command = replace(self.wanted, argv=argv, env={"TERM": "xterm"})
        return write_plan(plan, command, self.who, lock=self.folder / "shells.lock")

    def _run(self, command: Isolated, timeout_s: float, stdin: bytes) -> CommandResult:
        n_kills = command.group.n_oom_kills() if command.group else 0
        plan = self.folder / f"run-{secrets.token_hex(4)}.json"
        with _Init() as init:
            argv = write_plan(plan, command, self.who, status=init.status_fd)
            try:
                result = run_command(
                    argv,
                    timeout_s=timeout_s,
                    output_bytes=command.limits.output_bytes,
                    env={},
                    stdin=stdin,
                    pass_fds=(init.status_fd,),
                    on_start=init.started,
                    kill=init.kill,
                    watch=self._watch(command, init),
                )
            finally:
                init.end()
                plan.unlink(missing_ok=True)
        if init.exit_code is None and not (result.timed_out or result.out_of_memory or init.is_killed):
            raise InfrastructureError(f"the sandbox {self.folder.name} did not start: {_last_line(result)}")
        oom = result.out_of_memory or (command.group is not None and command.group.n_oom_kills() > n_kills)
        return replace(result, out_of_memory=oom)

    def _watch(self, command: Isolated, init: "_Init") -> Callable[[], Stop | None]:
        watches = [disk_watch([self.folder / name for name in _WRITABLE], lambda: init.pid, command.limits)]
        if command.group is None or not command.group.has_memory:
            watches.append(memory_watch(lambda: init.pid, command.limits))
        return lambda: next((stop for watch in watches if (stop := watch())), None)


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


def _furnish(folder: Path, spec: SandboxSpec, who: Owner) -> None:
    """Makes the sandbox's folders; only what is writable inside belongs to its owner."""
    folder.mkdir(parents=True, mode=0o700)
    for name in _WRITABLE:
        (folder / name).mkdir(mode=0o755)
    (folder / "home" / Path(HOME_DIR).name).mkdir()
    copying = ["cp", "-a", "--reflink=auto", "--", f"{spec.checkout}/.", str(folder / "testbed")]
    done = subprocess.run(copying, capture_output=True, timeout=600, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise InfrastructureError(f"cannot copy the checkout {spec.checkout} into a sandbox: {said}")
    who.give(*(folder / name for name in _WRITABLE))
    (folder / "etc").mkdir()
    for name, text in _ETC.items():
        (folder / "etc" / name).write_text(text)
    (folder / "shells.lock").touch()


def _mounts(folder: Path, spec: SandboxSpec, environment: Path) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """What is shown inside, and which folders of it are shown empty."""
    mounts = [Mount(folder / name, target, writable=True) for name, target in _WRITABLE.items()]
    mounts += [Mount(folder / "etc" / name, f"/etc/{name}") for name in _ETC]
    mounts.append(Mount(environment / "env", ENVIRONMENT_DIR))
    prefix = json.loads((environment / "environment.json").read_text())["prefix"]
    if not Path(prefix).is_relative_to("/usr"):
        mounts.append(Mount(Path(prefix), prefix))  # where pyvenv.cfg and the link bin/python say it is
    for source, target in ((spec.project, PROJECT_DIR), (spec.inputs, INPUTS_DIR)):
        if source is not None:
            mounts.append(Mount(source.resolve(), target))
    return tuple(mounts), hidden_packages(Path(prefix))


def _remove(folder: Path, group: Group | None) -> None:
    """Ends what still runs in a sandbox and removes its folders. A shell ends by itself when its plan is gone."""
    for plan in folder.glob("*.json"):
        plan.unlink(missing_ok=True)
    if group is not None:
        group.remove()
    _wait_for_shells(folder / "shells.lock")
    if not folder.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # folders that their owner had locked against itself
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(folder)], capture_output=True, timeout=600, check=False)
        shutil.rmtree(folder)


def _wait_for_shells(lock: Path) -> None:
    """Each shell's launcher holds this lock, shared, until its processes are gone."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    with contextlib.suppress(FileNotFoundError), lock.open("rb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InfrastructureError(f"a shell of the sandbox {lock.parent.name} does not end") from None
                time.sleep(0.02)
            else:
                return


def _safe(label: str) -> str:
    if not re.fullmatch(r"[\w.-]*", label):
        raise InfrastructureError(f"the sandbox label {label!r} may hold letters, digits, '.', '_' and '-' only")
    return label


def _last_line(result: CommandResult) -> str:
    lines = result.output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {result.exit_code}"
