"""One try at filling a virtual environment with uv. One property: foreign code runs in `source` alone, cut off.

`wheels` runs none of it and has uv's shared cache and the index's credentials. `source` runs one package's build with
neither, with a network that does not lead to this machine (see user_network.py).
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected
from swefactory.machine_faults import fault_of
from swefactory.sandbox_protocols import ENVIRONMENT_DIR, CommandResult, EnvironmentSpec, Limits
from swefactory.sandboxes.build_faults import is_network_fault
from swefactory.sandboxes.build_tries import BuildTry
from swefactory.sandboxes.index_settings import network_settings
from swefactory.sandboxes.interpreters import Interpreter
from swefactory.sandboxes.isolated_commands import run_isolated
from swefactory.sandboxes.isolation import Isolated, Mount, Network, Owner
from swefactory.sandboxes.kept_bytecode import KeptByteCode, check_argv, compile_argv
from swefactory.sandboxes.kept_wheels import needed
from swefactory.sandboxes.python27 import is_described, write_description
from swefactory.sandboxes.shared_files import SharedFiles
from swefactory.sandboxes.user_network import shared_because, write_resolver

_STORE = "/opt/store"
_UV, _UV27 = "/opt/uv/uv", "/opt/uv27"
_LOCK, _CONSTRAINTS = "/opt/lock", "/opt/constraints"
_LOCKED = ("--require-hashes", "--requirement", _LOCK)
_GIB = 2**30
_LIMITS = Limits(8 * _GIB, n_processes=1024, file_bytes=8 * _GIB, disk_bytes=20 * _GIB, output_bytes=2**20)
_PTH = "import site; site.addsitedir('/opt/project')\n"


@dataclass(frozen=True)
class VenvBuild:
    """One try at one environment, in the folder `part`."""

    store: Path
    timeout_s: float
    spec: EnvironmentSpec
    interpreter: Interpreter
    part: Path
    who: Owner

    def wheels(self, built: Sequence[Path]) -> CommandResult:
        """Installs from wheels alone, those `built` before below the store among them; their packages are not in the
        lock. What uv's cache has is taken unasked: hashes make it the same."""
        inside = f"{_STORE}/.parts/{self.part.name}/work"
        store = Mount(self.store, _STORE, writable=True)
        # uv's own environment here may hold credentials of an index: none but uv runs in this try.
        uv = self._uv(store, _STORE, with_secrets=True)
        result = self._empty(uv, inside)
        if result.exit_code != 0:
            return result
        self._lead_to_project()
        result = self._install(uv, inside, ["--no-build", "--offline", *_LOCKED])
        if result.exit_code != 0 and not needed(text_of(result)):
            result = self._install(uv, inside, ["--no-build", *_LOCKED])
        if result.exit_code == 0 and built:
            paths = [f"{_STORE}/{wheel.relative_to(self.store)}" for wheel in built]
            result = self._install(uv, inside, ["--no-build", "--offline", *paths])
        if result.exit_code == 0:
            self._compile()
        return result

    def source(self, how: BuildTry) -> CommandResult:
        """Installs a lock of one package that has no wheel, with a cache of its own, in which the wheel is left."""
        # Not the part itself: it holds the plans of the steps that follow.
        work = Mount(self.part / "work", _STORE, writable=True)
        uv = self._uv(work, f"{_STORE}/cache", with_secrets=False)
        constraints = self.part / "constraints.txt"
        constraints.write_text(how.constraint)
        open_to_all(constraints)
        uv = replace(uv, mounts=(*uv.mounts, Mount(constraints, _CONSTRAINTS)))
        result = self._empty(uv, _STORE)
        if result.exit_code != 0:
            return result
        return self._install(uv, _STORE, ["--build-constraints", _CONSTRAINTS, *how.options, *_LOCKED])

    def _uv(self, mount: Mount, cache: str, *, with_secrets: bool) -> Isolated:
        import uv

        settings = network_settings(with_secrets=with_secrets)
        network: Network = "host" if with_secrets or shared_because(settings.env) else "user"
        resolver = (Mount(write_resolver(self.part), "/etc/resolv.conf"),) if network == "user" else ()
        lock = self.part / "lock.txt"
        lock.write_text(self.spec.lock)
        program = Mount(Path(uv.find_uv_bin()), _UV)
        mounts = (mount, program, Mount(lock, _LOCK), *self._interpreter(), *settings.mounts, *resolver)
        env = {**settings.env, "UV_CACHE_DIR": cache, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
        env |= {"HOME": "/tmp", "UV_LINK_MODE": "hardlink"}  # noqa: S108 - a private one, inside
        return Isolated((), mounts, _LIMITS, env=env, cwd="/", network=network)

    def _empty(self, uv: Isolated, inside: str) -> CommandResult:
        """Makes a virtual environment with nothing in it."""
        for name in ("env", "cache"):
            (self.part / "work" / name).mkdir()
        open_to_all(self.part / "lock.txt", self.part / "work", self.part / "work" / "env")
        self.who.give(self.part / "work")
        python = f"{_UV27}/python" if self._is_described else str(self.interpreter.path)
        venv = [_UV, "venv", "--relocatable", "--no-project", "--allow-existing"]
        return self._run(uv, [*venv, "--python", python, f"{inside}/env"])

    def _lead_to_project(self) -> None:
        """Nothing but uv has run here yet, so nothing stands in the way of the file."""
        lib = self.part / "work" / "env" / "lib" / f"python{self.interpreter.version}"
        path = lib / "site-packages" / "_swefactory.pth"
        path.write_text(_PTH)
        open_to_all(path)

    def _install(self, uv: Isolated, inside: str, arguments: Sequence[str]) -> CommandResult:
        python = f"{inside}/env/bin/python"
        return self._run(uv, [_UV, "pip", "install", "--no-deps", "--python", python, *arguments])

    def _compile(self) -> None:
        """A file that does not compile is none of our business: templates, other versions' syntax."""
        env = self.part / "work" / "env"
        require_folder(env)
        here = Mount(env, ENVIRONMENT_DIR, writable=True)
        offline = Isolated((), (here, *self._interpreter()), _LIMITS, cwd="/")
        program = str(self.interpreter.path)
        if self._is_described:
            finished = self._run(offline, ["/bin/sh", f"{_UV27}/finish.sh", program, ENVIRONMENT_DIR])
            if finished.exit_code != 0:
                raise failure(self.spec, finished)
        SharedFiles(self.store).share(env / "lib")
        kept = KeptByteCode(self.store / ".bytecode")
        if missing := kept.lay(env / "lib", self.interpreter.version):
            self.who.give(env)
            lib = f"{ENVIRONMENT_DIR}/lib"
            self._run(offline, compile_argv(program, self.interpreter.version, lib))
            checked = self._run(offline, check_argv(program, self.interpreter.version, lib))
            if checked.exit_code != 0:
                raise InfrastructureError(f"environment {self.spec.digest}: byte code is not whole: {text_of(checked)}")
            kept.keep(missing)

    @property
    def _is_described(self) -> bool:
        return is_described(self.interpreter.version)

    def _interpreter(self) -> tuple[Mount, ...]:
        """Its installation, and what lets uv use one that it does not know."""
        prefix = self.interpreter.prefix
        mounts = () if prefix.is_relative_to("/usr") else (Mount(prefix, str(prefix)),)
        if not self._is_described:
            return mounts
        described = self.part / "uv27"
        if not described.exists():
            write_description(described, str(self.interpreter.path))
        return (*mounts, Mount(described, _UV27))

    def _run(self, isolated: Isolated, argv: list[str]) -> CommandResult:
        tmp = self.part / "tmp"
        tmp.mkdir(exist_ok=True)
        self.who.give(tmp)
        mounts = (Mount(tmp, "/tmp", writable=True), *isolated.mounts)  # noqa: S108 - a private one, inside
        command = replace(isolated, argv=tuple(argv), mounts=mounts)
        return run_isolated(self.part, command, self.who, timeout_s=self.timeout_s, watched=[self.part])


def failure(spec: EnvironmentSpec, result: CommandResult) -> Exception:
    text = text_of(result)
    if result.timed_out:
        return Rejected(RejectReason.BUILD_FAILED, f"environment {spec.digest}: time ran out\n{text[-4000:]}")
    if is_network_fault(text) or fault_of(result):
        said = f"{fault_of(result)} {text[-2000:]}".strip()
        return InfrastructureError(f"environment {spec.digest} could not be filled: {said}; check network and disk")
    return Rejected(RejectReason.BUILD_FAILED, f"environment {spec.digest}: {text[-4000:]}")


def require_folder(path: Path) -> None:
    """What a build left as its environment must be a folder: behind a link, all of the host could be shown."""
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise Rejected(RejectReason.BUILD_FAILED, "the build put something else in place of its environment's folder")


def open_to_all(*paths: Path) -> None:
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)


def text_of(result: CommandResult) -> str:
    return result.output.decode(errors="replace").strip()
