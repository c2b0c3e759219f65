"""Makes virtual environments from hashed locks, with uv. One property: an environment is there whole or not at all.

    CACHE/environments/HEX/env                 the virtual environment, shown to sandboxes as /opt/env
    CACHE/environments/HEX/environment.json    the interpreter's prefix, the size; format 1
    UV_CACHE/.parts/RANDOM/work                what a build may write: env, cache, tmp; in uv's cache because hard links
                                               to it work only within one mount
    UV_CACHE/.parts/RANDOM/done                the finished environment, then renamed into place

Nobody else's code runs where it could harm: the first try installs wheels only and runs none of it. Only a lock that
needs source distributions gets a second try, whose builds have the network but see neither uv's shared cache, nor other
environments, nor a secret. Byte code is compiled offline, with no site module and so no .pth file in effect.
"""

import contextlib
import fcntl
import json
import re
import secrets
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from db.models import RejectReason
from swefactory.errors import InfrastructureError, Rejected
from swefactory.protocols import ENVIRONMENT_DIR, CommandResult, EnvironmentSpec, Limits, Materialised
from swefactory.sandboxes.build_faults import BUILD_CONSTRAINTS, is_network_fault, needs_source
from swefactory.sandboxes.index_settings import network_settings
from swefactory.sandboxes.interpreters import Interpreter
from swefactory.sandboxes.isolated_commands import run_isolated
from swefactory.sandboxes.isolation import BUILDER_UID, Isolated, Mount, Owner, owner
from swefactory.sandboxes.watchdogs import disk_usage

_STORE = "/opt/store"
_UV = "/opt/uv/uv"
_LOCK, _CONSTRAINTS = "/opt/lock", "/opt/constraints"
_GIB = 2**30
_LIMITS = Limits(8 * _GIB, n_processes=1024, file_bytes=8 * _GIB, disk_bytes=20 * _GIB, output_bytes=2**20)
_PTH = "import site; site.addsitedir('/opt/project')\n"
_SETUPTOOLS = re.compile(r"setuptools|pkg_resources|use_2to3|distutils")
_STALE_PART_S = 24 * 3600


@dataclass(frozen=True)
class Venvs:
    """Environments below `cache`, made with uv's cache at `store`."""

    cache: Path
    store: Path
    timeout_s: float

    def materialise(self, spec: EnvironmentSpec, interpreters: Mapping[str, Interpreter]) -> Materialised:
        """See SandboxBackend.materialise."""
        started = time.monotonic()
        target = self.cache / "environments" / spec.digest.removeprefix("sha256:")
        with _locked(target.with_name(f".{target.name}.lock")):
            built, log = not (target / "environment.json").exists(), ""
            if built:
                log = self._build(spec, interpreter_of(spec.python_version, interpreters), target)
        size = json.loads((target / "environment.json").read_text())["size_bytes"]
        return Materialised(str(target), size, time.monotonic() - started, built, log)

    def sweep(self) -> None:
        """Removes what crashed builds left behind, a day after."""
        for part in (self.store / ".parts").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _STALE_PART_S:
                    shutil.rmtree(part, ignore_errors=True)

    def _build(self, spec: EnvironmentSpec, interpreter: Interpreter, target: Path) -> str:
        with owner(BUILDER_UID) as who:
            self._prepare(who)
            with self._part() as part:
                log = _Build(self, spec, interpreter, part, who).wheels()
                if log is not None:
                    return self._place(part, interpreter, target, log)
            for constraint in BUILD_CONSTRAINTS:
                with self._part() as part:
                    result = _Build(self, spec, interpreter, part, who).sources(constraint)
                    if result.exit_code == 0:
                        return self._place(part, interpreter, target, _text(result))
                if not _SETUPTOOLS.search(_text(result)):
                    break
        raise _failure(spec, result)

    def _prepare(self, who: Owner) -> None:
        """uv's cache belongs to the builder; what was put there by another user of it is given over once."""
        (self.store / ".parts").mkdir(parents=True, exist_ok=True)
        if self.store.stat().st_uid != who.uid:
            who.give(self.store)

    @contextlib.contextmanager
    def _part(self) -> Iterator[Path]:
        part = self.store / ".parts" / secrets.token_hex(6)
        (part / "work").mkdir(parents=True)
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _place(self, part: Path, interpreter: Interpreter, target: Path, log: str) -> str:
        """Moves a finished environment to where it is looked for; the last step is one rename."""
        done = part / "done"
        done.mkdir()
        (part / "work" / "env").rename(done / "env")
        _require_folder(done / "env")
        size = disk_usage(done / "env")
        record = {"format": 1, "prefix": str(interpreter.prefix), "version": interpreter.version, "size_bytes": size}
        (done / "environment.json").write_text(json.dumps(record))
        shutil.rmtree(target, ignore_errors=True)
        try:
            done.rename(target)
        except OSError:  # uv's cache is on another file system
            beside = target.with_name(f".{target.name}.part")
            shutil.rmtree(beside, ignore_errors=True)
            subprocess.run(["cp", "-a", "--", str(done), str(beside)], check=True, capture_output=True, timeout=600)
            beside.rename(target)
        return log


@dataclass(frozen=True)
class _Build:
    """One try at one environment, in the folder `part`."""

    venvs: Venvs
    spec: EnvironmentSpec
    interpreter: Interpreter
    part: Path
    who: Owner

    def wheels(self) -> str | None:
        """Installs from wheels alone; None when the lock needs a source distribution. Raises as materialise."""
        inside = f"{_STORE}/.parts/{self.part.name}/work"
        store = Mount(self.venvs.store, _STORE, writable=True)
        # uv's own environment here may hold credentials of an index: none but uv runs in this try.
        uv = self._uv(store, _STORE, inside, with_secrets=True)
        result = self._install(uv, inside, ["--no-build"])
        if result.exit_code == 0:
            self._compile()
            return _text(result)
        if needs_source(_text(result)):
            return None
        raise _failure(self.spec, result)

    def sources(self, constraint: str) -> CommandResult:
        """Installs, building what has no wheel, with a cache of its own."""
        # Not the part itself: it holds the plans of the steps that follow.
        work = Mount(self.part / "work", _STORE, writable=True)
        uv = self._uv(work, f"{_STORE}/cache", _STORE, with_secrets=False)
        constraints = self.part / "constraints.txt"
        constraints.write_text(constraint)
        _open_to_all(constraints)
        uv = replace(uv, mounts=(*uv.mounts, Mount(constraints, _CONSTRAINTS)))
        result = self._install(uv, _STORE, ["--build-constraints", _CONSTRAINTS])
        if result.exit_code == 0:
            self._compile()
        return result

    def _uv(self, mount: Mount, cache: str, inside: str, *, with_secrets: bool) -> Isolated:
        import uv

        settings = network_settings(with_secrets=with_secrets)
        lock = self.part / "lock.txt"
        lock.write_text(self.spec.lock)
        mounts = (mount, Mount(Path(uv.find_uv_bin()), _UV), Mount(lock, _LOCK), *self._prefix(), *settings.mounts)
        env = {**settings.env, "UV_CACHE_DIR": cache, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
        env |= {"HOME": "/tmp", "UV_LINK_MODE": "hardlink"}  # noqa: S108 - a private one, inside
        return Isolated((), mounts, _LIMITS, env=env, cwd="/", has_network=True)

    def _install(self, uv: Isolated, inside: str, options: list[str]) -> CommandResult:
        for name in ("env", "cache"):
            (self.part / "work" / name).mkdir()
        _open_to_all(self.part / "lock.txt", self.part / "work", self.part / "work" / "env")
        self.who.give(self.part / "work")
        venv = [_UV, "venv", "--relocatable", "--no-project", "--allow-existing"]
        result = self._run(uv, [*venv, "--python", str(self.interpreter.path), f"{inside}/env"])
        if result.exit_code != 0:
            return result
        packages = f"{inside}/env/lib/python{self.interpreter.version}/site-packages"
        self._run(uv, ["/usr/bin/tee", f"{packages}/_swefactory.pth"], _PTH)
        install = [_UV, "pip", "install", "--require-hashes", "--no-deps", *options]
        return self._run(uv, [*install, "--python", f"{inside}/env/bin/python", "--requirement", _LOCK])

    def _compile(self) -> None:
        """A file that does not compile is none of our business: templates, other versions' syntax."""
        env = self.part / "work" / "env"
        _require_folder(env)
        here = Mount(env, ENVIRONMENT_DIR, writable=True)
        offline = Isolated((), (here, *self._prefix()), _LIMITS, cwd="/")
        compiling = ["-I", "-S", "-m", "compileall", "-q", "-j", "2", f"{ENVIRONMENT_DIR}/lib"]
        self._run(offline, [str(self.interpreter.path), *compiling])

    def _prefix(self) -> tuple[Mount, ...]:
        prefix = self.interpreter.prefix
        return () if prefix.is_relative_to("/usr") else (Mount(prefix, str(prefix)),)

    def _run(self, isolated: Isolated, argv: list[str], stdin: str = "") -> CommandResult:
        tmp = self.part / "tmp"
        tmp.mkdir(exist_ok=True)
        self.who.give(tmp)
        mounts = (Mount(tmp, "/tmp", writable=True), *isolated.mounts)  # noqa: S108 - a private one, inside
        command = replace(isolated, argv=tuple(argv), mounts=mounts)
        timeout_s = self.venvs.timeout_s
        return run_isolated(
            self.part, command, self.who, timeout_s=timeout_s, watched=[self.part], stdin=stdin.encode()
        )


def hidden_packages(prefix: Path) -> tuple[str, ...]:
    """Packages installed beside an interpreter or the system's. A sandbox shows these folders empty: they may hold
    a newer release of the very project under test."""
    folders = [*prefix.glob("lib/python*/site-packages"), *Path("/usr").glob("lib/python*/dist-packages")]
    folders += Path("/usr/local").glob("lib/python*/*-packages")
    return tuple(sorted({str(folder) for folder in folders if folder.is_dir() and not folder.is_symlink()}))


def interpreter_of(version: str, interpreters: Mapping[str, Interpreter]) -> Interpreter:
    """Raises Rejected(NO_INTERPRETER) where there is none that uv serves."""
    found = interpreters.get(version)
    if found is None:
        have = ", ".join(interpreters) or "none"
        detail = f"no Python {version} on this machine (found: {have}); install it, for instance with pyenv"
        raise Rejected(RejectReason.NO_INTERPRETER, detail)
    if found.full_version < (3, 6):
        detail = f"no environment can be made for Python {version} yet: uv, which fills them, serves 3.6 and newer"
        raise Rejected(RejectReason.NO_INTERPRETER, detail)
    return found


def _failure(spec: EnvironmentSpec, result: CommandResult) -> Exception:
    text = _text(result)
    if result.timed_out:
        return Rejected(RejectReason.BUILD_FAILED, f"environment {spec.digest}: time ran out\n{text[-4000:]}")
    if is_network_fault(text):
        return InfrastructureError(f"environment {spec.digest} could not be filled: {text[-2000:]}; check the network")
    return Rejected(RejectReason.BUILD_FAILED, f"environment {spec.digest}: {text[-4000:]}")


def _require_folder(path: Path) -> None:
    """What a build left as its environment must be a folder: behind a link, all of the host could be shown."""
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise Rejected(RejectReason.BUILD_FAILED, "the build put something else in place of its environment's folder")


def _open_to_all(*paths: Path) -> None:
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _text(result: CommandResult) -> str:
    return result.output.decode(errors="replace").strip()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time for one environment, among threads and processes; a crash lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
