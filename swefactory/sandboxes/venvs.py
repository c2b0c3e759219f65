"""Makes virtual environments from hashed locks, with uv. One property: an environment is there whole or not at all.

    CACHE/environments/HEX/env                 the virtual environment, shown to sandboxes as /opt/env
    CACHE/environments/HEX/environment.json    the interpreter's prefix, the size; format 1
    UV_CACHE/.parts/RANDOM/work                what a build may write: env, cache, tmp; in uv's cache because hard links
                                               to it work only within one mount
    UV_CACHE/.parts/RANDOM/done                the finished environment, then renamed into place

Nobody else's code runs where it could harm: an environment is filled from wheels only, which runs none of it. A package
that has none is built to a wheel first, by itself; its build has the network but sees neither uv's shared cache, nor
environments, nor a secret. Byte code is compiled offline, with no site module and so no .pth file in effect. Built
wheels and byte code are kept (kept_wheels.py, kept_bytecode.py) and shared as what uv's cache holds.
"""

import contextlib
import fcntl
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from db.enums import RejectReason
from swefactory.errors import Rejected
from swefactory.sandbox_protocols import CommandResult, EnvironmentSpec, Materialised
from swefactory.sandboxes.build_tries import BuildTry
from swefactory.sandboxes.interpreters import Interpreter
from swefactory.sandboxes.isolation import BUILDER_UID, Owner, owner
from swefactory.sandboxes.kept_wheels import KeptWheels, Pin
from swefactory.sandboxes.python27 import check_served
from swefactory.sandboxes.venv_builds import VenvBuild, failure, require_folder, text_of
from swefactory.sandboxes.watchdogs import disk_usage
from swefactory.sandboxes.wheel_filling import fill

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

    def stands(self, spec: EnvironmentSpec) -> bool:
        """Whether it is there already."""
        return (self.cache / "environments" / spec.digest.removeprefix("sha256:") / "environment.json").exists()

    def sweep(self) -> None:
        """Removes what crashed builds left behind, a day after."""
        for part in (self.store / ".parts").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _STALE_PART_S:
                    shutil.rmtree(part, ignore_errors=True)

    def _build(self, spec: EnvironmentSpec, interpreter: Interpreter, target: Path) -> str:
        with owner(BUILDER_UID) as who:
            self._prepare(who)
            return fill(spec, KeptWheels(self.store / ".wheels"), _Filling(self, spec, interpreter, target, who))

    def _prepare(self, who: Owner) -> None:
        """uv's cache belongs to the builder; what was put there by another user of it is given over once."""
        (self.store / ".parts").mkdir(parents=True, exist_ok=True)
        if self.store.stat().st_uid != who.uid:
            who.give(self.store)

    @contextlib.contextmanager
    def part(self) -> Iterator[Path]:
        """A folder for one try; gone when the context ends."""
        part = self.store / ".parts" / secrets.token_hex(6)
        (part / "work").mkdir(parents=True)
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


@dataclass(frozen=True)
class _Filling:
    """See wheel_filling.Builder: one environment that becomes `target`."""

    venvs: Venvs
    spec: EnvironmentSpec
    interpreter: Interpreter
    target: Path
    who: Owner

    def wheels(self, lock: str, built: Sequence[Path]) -> CommandResult:
        with self.venvs.part() as part:
            result = self._try(lock, part).wheels(built)
            if result.exit_code == 0:
                self._place(part)
            return result

    def source(self, pin: Pin, how: BuildTry, kept: KeptWheels) -> tuple[CommandResult, Path | None]:
        with self.venvs.part() as part:
            result = self._try(pin.lock, part).source(how)
            if result.exit_code != 0:
                return result, None
            require_folder(part / "work" / "cache")
            return result, kept.keep(pin, self.interpreter.version, part / "work" / "cache")

    def text(self, result: CommandResult) -> str:
        return text_of(result)

    def failure(self, result: CommandResult) -> Exception:
        return failure(self.spec, result)

    def _try(self, lock: str, part: Path) -> VenvBuild:
        spec = replace(self.spec, lock=lock)
        return VenvBuild(self.venvs.store, self.venvs.timeout_s, spec, self.interpreter, part, self.who)

    def _place(self, part: Path) -> None:
        """Moves a finished environment to where it is looked for; the last step is one rename."""
        done, target, interpreter = part / "done", self.target, self.interpreter
        done.mkdir()
        (part / "work" / "env").rename(done / "env")
        require_folder(done / "env")
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


def hidden_packages(prefix: Path) -> tuple[str, ...]:
    """Packages installed beside an interpreter or the system's. A sandbox shows these folders empty: they may hold
    a newer release of the very project under test."""
    folders = [*prefix.glob("lib/python*/site-packages"), *Path("/usr").glob("lib/python*/dist-packages")]
    folders += Path("/usr/local").glob("lib/python*/*-packages")
    return tuple(sorted({str(folder) for folder in folders if folder.is_dir() and not folder.is_symlink()}))


def interpreter_of(version: str, interpreters: Mapping[str, Interpreter]) -> Interpreter:
    """Raises Rejected(NO_INTERPRETER) where there is none that can be used."""
    check_served(version)
    found = interpreters.get(version)
    if found is None:
        have = ", ".join(interpreters) or "none"
        detail = f"no Python {version} on this machine (found: {have}); install it, for instance with pyenv"
        raise Rejected(RejectReason.NO_INTERPRETER, detail)
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time for one environment, among threads and processes; a crash lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
