"""A SandboxBackend that isolates nothing: each sandbox is a folder on the host, and its absolute paths are rewritten.

For tests of what runs inside a sandbox, on machines that cannot isolate and with interpreters that no sandbox
offers. The environment's digest names the virtual environment: `environments[digest]` is its folder.
"""

import atexit
import functools
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from db.enums import RejectReason
from swefactory.artifacts import LocalArtifacts
from swefactory.checkouts import Checkouts, diff, seal
from swefactory.config import Settings
from swefactory.errors import InfrastructureError, Rejected
from swefactory.protocols import Agent, AgentSpec
from swefactory.sandbox_protocols import (
    CHECKOUT_DIR,
    ENVIRONMENT_DIR,
    INPUTS_DIR,
    PROJECT_DIR,
    RESULTS_DIR,
    CommandResult,
    EnvironmentSpec,
    Materialised,
    Sandbox,
    SandboxBackend,
    SandboxSpec,
    UvRun,
)
from swefactory.stage import Services


class HostSandbox:
    """Runs commands on the host in a folder of its own. Never for code that is not ours."""

    def __init__(self, root: Path, environment: Path) -> None:
        self.root = root
        self._environment = environment

    def host_path(self, text: str) -> str:
        """`text` with every path of the sandbox replaced by where it stands on the host."""
        for path in (CHECKOUT_DIR, PROJECT_DIR, INPUTS_DIR, RESULTS_DIR):
            text = text.replace(path, f"{self.root}{path}")
        return text.replace(ENVIRONMENT_DIR, str(self._environment))

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: str = CHECKOUT_DIR,
        stdin: bytes = b"",
    ) -> CommandResult:
        started = time.monotonic()
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": str(self.root), "LANG": "C.UTF-8", "TMPDIR": str(self.root / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": self.host_path(PROJECT_DIR), **(env or {}),
        }  # fmt: skip
        try:
            ended = subprocess.run(
                [self.host_path(argument) for argument in argv],
                check=False,
                cwd=self.host_path(cwd),
                env=environment,
                input=self.host_path(stdin.decode()).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            return CommandResult(None, error.stdout or b"", time.monotonic() - started, timed_out=True)
        code = ended.returncode if ended.returncode >= 0 else 128 - ended.returncode
        return CommandResult(code, ended.stdout, time.monotonic() - started)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        target = Path(self.host_path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)

    def read(self, path: str, max_bytes: int = 64 * 2**20) -> bytes:
        source = Path(self.host_path(path))
        if source.exists() and source.stat().st_size > max_bytes:
            raise InfrastructureError(f"{path} is larger than {max_bytes} bytes")
        return source.read_bytes()

    def shell_argv(self) -> list[str]:
        return ["bash"]

    def violation(self) -> str | None:
        return None


class HostBackend:
    """Sandboxes on the host. `environments` maps an environment's digest to a virtual environment's folder."""

    name = "host"

    def __init__(self, environments: Mapping[str, Path]) -> None:
        self._environments = environments
        self.n_opened = 0

    def probe(self) -> str | None:
        return "it isolates nothing"

    def no_network(self) -> str | None:
        return "it is a fake, and gives none"

    def pythons(self) -> Mapping[str, str]:
        return {}

    def materialise(self, spec: EnvironmentSpec) -> Materialised:
        return Materialised(str(self._environments[spec.digest]), 0, 0.0, built=False)

    def run_uv(
        self,
        arguments: Sequence[str],
        *,
        files: Mapping[str, str],
        writes: str,
        python_version: str,
        timeout_s: float,
    ) -> UvRun:
        raise Rejected(RejectReason.NO_INTERPRETER, f"nothing is resolved here, not even for Python {python_version}")

    def open(self, spec: SandboxSpec) -> AbstractContextManager[Sandbox]:
        return self._open(spec)

    @contextmanager
    def _open(self, spec: SandboxSpec) -> Iterator[Sandbox]:
        self.n_opened += 1
        with tempfile.TemporaryDirectory(prefix="swefactory-host-sandbox-") as name:
            root = Path(os.path.realpath(name))
            shutil.copytree(spec.checkout, f"{root}{CHECKOUT_DIR}", symlinks=True)
            for source, target in ((spec.project, PROJECT_DIR), (spec.inputs, INPUTS_DIR)):
                if source is not None:
                    shutil.copytree(source, f"{root}{target}")
            Path(f"{root}{RESULTS_DIR}").mkdir(parents=True)
            (root / "tmp").mkdir()
            yield HostSandbox(root, self._environments[spec.environment.digest])

    def sweep(self, live: Callable[[str], bool]) -> int:
        return 0


HERE = EnvironmentSpec(digest="sha256:here", python_version="3.12", lock="")  # this interpreter and pytest alone
_PYTEST = ("pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging", "pygments")


@functools.cache
def pytest_alone() -> Path:
    """A virtual environment of this interpreter with the pytest of these tests and none of the plugins that slow its
    start. Made once a process, of links, so no registry is needed."""
    folder = Path(tempfile.mkdtemp(prefix="swefactory-pytest-alone-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    venv.create(folder, symlinks=True)
    packages, ours = (Path(sysconfig.get_path("purelib", vars=v)) for v in ({"base": str(folder)}, None))
    for source in (*(ours / name for name in _PYTEST), *ours.glob("pytest-*.dist-info"), *ours.glob("pluggy-*")):
        if source.exists():
            (packages / source.name).symlink_to(source)
    return folder


def host_services(home: Path, backend: SandboxBackend | None = None, **settings: Any) -> Services:
    """Services below `home` with real parts; without `backend`, sandboxes on the host that hold pytest_alone."""
    return Services(
        settings=Settings(home=home, database_url="", **settings),
        sources={},
        checkouts=Checkouts(home / "mirrors", home / "cache"),
        sandboxes=backend or HostBackend({HERE.digest: pytest_alone()}),
        artifacts=LocalArtifacts(home / "artifacts"),
        agent=_no_agent,
    )


def _no_agent(spec: AgentSpec) -> Agent:
    raise AssertionError(f"no agent is needed here, {spec.name} was asked for")


def write_tree(folder: Path, files: Mapping[str, str]) -> Path:
    """Writes `files` (path -> text) below `folder`."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def diff_of(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The git diff between two trees, as `swefactory.checkouts.diff` writes it."""
    with tempfile.TemporaryDirectory(prefix="swefactory-diff-") as name:
        folder = write_tree(Path(name), before)
        seal(folder)
        for path in before.keys() - after.keys():
            (folder / path).unlink()
        write_tree(folder, after)
        return diff(folder)
