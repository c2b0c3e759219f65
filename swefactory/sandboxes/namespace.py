"""The namespace sandbox: no daemon, not necessarily root. One property: it isolates, or it refuses.

CACHE/environments/HEX/          one environment: env/ (a virtual environment) and environment.json, see venvs.py
CACHE/sandboxes/LABEL~RANDOM/    one open sandbox: what is writable inside, and the plans of its commands
CACHE/resolver/                  where locks are resolved, see resolution.py
CACHE/uv/                        uv's cache, of both
"""

import contextlib
import fcntl
import json
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from swefactory.errors import InfrastructureError, SandboxUnavailable
from swefactory.sandbox_protocols import (
    CHECKOUT_DIR,
    ENVIRONMENT_DIR,
    INPUTS_DIR,
    PROJECT_DIR,
    RESULTS_DIR,
    DiskUse,
    EnvironmentSpec,
    Materialised,
    Sandbox,
    SandboxSpec,
    UvRun,
)
from swefactory.sandboxes.disk_budget import admit
from swefactory.sandboxes.groups import Group, find_group, make_group
from swefactory.sandboxes.interpreters import Interpreter, find_interpreters
from swefactory.sandboxes.isolation import HOME_DIR, USER_ID, Isolated, Mount, Network, Owner, obstacle, owner
from swefactory.sandboxes.kept_extensions import KeptExtensions
from swefactory.sandboxes.namespace_sandbox import NamespaceSandbox
from swefactory.sandboxes.resolution import Resolutions
from swefactory.sandboxes.shell_guards import ShellGuard
from swefactory.sandboxes.strays import end_strays
from swefactory.sandboxes.system_packages import require_packages
from swefactory.sandboxes.user_network import none_because, write_resolver
from swefactory.sandboxes.venv_store import VenvStore
from swefactory.sandboxes.venvs import Venvs, hidden_packages, interpreter_of

_WRITABLE = {"testbed": CHECKOUT_DIR, "results": RESULTS_DIR, "tmp": "/tmp", "home": "/home"}  # noqa: S108
_SHOWN = {"project": PROJECT_DIR, "inputs": INPUTS_DIR}
_ETC = {
    "passwd": f"root:x:0:0::/nonexistent:/usr/sbin/nologin\nsandbox:x:{USER_ID}:{USER_ID}::{HOME_DIR}:/bin/bash\n",
    "group": f"root:x:0:\nsandbox:x:{USER_ID}:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "hostname": "sandbox\n",
}
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
        use_control_groups: bool = True,
        disk_budget_bytes: int = 0,
    ) -> None:
        """`uv_cache` is for this backend alone: as root its files are given to a host uid that only builds."""
        self._cache = cache_dir.resolve()
        self._extra_folders = tuple(extra_interpreter_folders)
        self._disk_budget_bytes = disk_budget_bytes
        store = (uv_cache or self._cache / "uv").resolve()
        others = (self._cache / "resolver",)
        self._kept = VenvStore(self._cache / "environments", store, others, KeptExtensions(self._cache))
        self._venvs = Venvs(self._cache, store, build_timeout_s)
        self._resolutions = Resolutions(self._cache / "resolver", store)
        self._use_control_groups = use_control_groups
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

    def no_network(self) -> str | None:
        """See SandboxBackend."""
        return none_because()

    def pythons(self) -> Mapping[str, str]:
        """ "3.9" -> the interpreter's path. Looked for once."""
        return {version: str(found.path) for version, found in self._found().items()}

    def materialise(self, spec: EnvironmentSpec) -> Materialised:
        """See SandboxBackend. The locator is the environment's folder."""
        self._require()
        require_packages(f"environment {spec.digest}", spec.system_packages)
        with self._kept.locks.used(spec.digest):
            if not self._venvs.stands(spec):
                admit(self, self._disk_budget_bytes)
            made = self._venvs.materialise(spec, self._found())
            unique, shared = self._kept.size(spec.digest) if made.built else (0, 0)
        return replace(made, unique_bytes=unique, shared_bytes=shared)

    def disk_use(self) -> DiskUse:
        """See EnvironmentStore."""
        return self._kept.disk_use()

    def evict(self, digest: str) -> bool:
        """See EnvironmentStore."""
        return self._kept.evict(digest)

    def drop_caches(self) -> int:
        """See EnvironmentStore."""
        return self._kept.drop_caches()

    def run_uv(
        self,
        arguments: Sequence[str],
        *,
        files: Mapping[str, str],
        writes: str,
        python_version: str,
        timeout_s: float,
    ) -> UvRun:
        """See SandboxBackend."""
        self._require()
        interpreter = interpreter_of(python_version, self._found())

        def run() -> UvRun:
            return self._resolutions.run(
                arguments, files=files, writes=writes, interpreter=interpreter, timeout_s=timeout_s
            )

        return self._kept.answers.ask(arguments, files, str(interpreter.path), run)

    @contextlib.contextmanager
    def _open(self, spec: SandboxSpec) -> Iterator[Sandbox]:
        self._require()
        if spec.is_online and (why := none_because()):
            raise SandboxUnavailable(f"a sandbox cannot be given a network of its own: {why}")
        folder = self._cache / "sandboxes" / f"{_safe(spec.label)}~{secrets.token_hex(6)}"
        group = make_group(folder.name, spec.limits) if self._use_control_groups else None
        try:
            with self._kept.locks.used(spec.environment.digest), owner() as who, _held(folder):
                environment = Path(self.materialise(spec.environment).locator)
                _furnish(folder, spec, who)
                mounts, hidden = _mounts(folder, environment)
                network: Network = "closed" if spec.is_online else "none"
                wanted = Isolated((), mounts, spec.limits, hidden=hidden, group=group, network=network)
                writable = tuple(folder / name for name in _WRITABLE)
                with ShellGuard(folder, writable, spec.limits).until_closed() as guard:
                    yield NamespaceSandbox(folder, wanted, who, writable, guard)
        finally:
            _remove(folder, group)

    def open(self, spec: SandboxSpec) -> AbstractContextManager[Sandbox]:
        """See SandboxBackend. Raises SandboxUnavailable where nothing can be isolated."""
        return self._open(spec)

    def sweep(self, live: Callable[[str], bool]) -> int:
        """Removes the folders, processes and control groups of sandboxes whose owner is dead, and broken builds.
        One without a label is dead when the process that opened it is."""
        n_removed = 0
        for folder in sorted((self._cache / "sandboxes").glob("*~*")):
            label = folder.name.rpartition("~")[0]
            if not live(label) if label else not _is_held(folder):
                _remove(folder, find_group(folder.name))
                n_removed += 1
        end_strays(self._cache)
        self._venvs.sweep()
        self._kept.sweep()
        self._resolutions.sweep()
        return n_removed

    def _require(self) -> None:
        if why := self.probe():
            raise SandboxUnavailable(f"untrusted code cannot be isolated here: {why}")

    def _found(self) -> dict[str, Interpreter]:
        with self._lock:
            if self._interpreters is None:
                self._interpreters = find_interpreters(self._extra_folders)
            return self._interpreters


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Makes the sandbox's folder and holds a lock in it while it is open."""
    folder.mkdir(parents=True, mode=0o700)
    with (folder / "open.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_held(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), (folder / "open.lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _furnish(folder: Path, spec: SandboxSpec, who: Owner) -> None:
    """Makes the sandbox's folders; only what is writable inside belongs to its owner."""
    for name in (*_WRITABLE, *_SHOWN, "etc"):
        (folder / name).mkdir()
    (folder / "home" / Path(HOME_DIR).name).mkdir()
    for name, text in _ETC.items():
        (folder / "etc" / name).write_text(text.replace("hosts: files", "hosts: files dns") if spec.is_online else text)
    if spec.is_online:
        write_resolver(folder / "etc")
    _copy(spec.checkout, folder / "testbed")
    for name, source in (("project", spec.project), ("inputs", spec.inputs)):
        if source is not None:
            _copy(source, folder / name)
    # Copies, made readable: the user inside is another one, and temporary folders open to their maker alone.
    _do(["chmod", "-R", "a+rX", "--", *(str(folder / name) for name in (*_SHOWN, "etc"))])
    who.give(*(folder / name for name in _WRITABLE))
    (folder / "shells.lock").touch()


def _copy(source: Path, target: Path) -> None:
    _do(["cp", "-a", "--reflink=auto", "--", f"{source}/.", str(target)])


def _do(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, timeout=600, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise InfrastructureError(f"cannot furnish a sandbox: {' '.join(argv)}: {said}; is the disk full?")


def _mounts(folder: Path, environment: Path) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """What is shown inside, and which folders of it are shown empty."""
    mounts = [Mount(folder / name, target, writable=True) for name, target in _WRITABLE.items()]
    mounts += [Mount(path, f"/etc/{path.name}") for path in sorted((folder / "etc").iterdir())]
    mounts.append(Mount(environment / "env", ENVIRONMENT_DIR))
    prefix = json.loads((environment / "environment.json").read_text())["prefix"]
    if not Path(prefix).is_relative_to("/usr"):
        mounts.append(Mount(Path(prefix), prefix))  # where pyvenv.cfg and the link bin/python say it is
    mounts += [Mount(folder / name, target) for name, target in _SHOWN.items()]
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
