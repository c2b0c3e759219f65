"""A SandboxBackend whose environments are real virtual environments on this host, and which isolates nothing.

For tests of the environment stage where no sandbox can be had. Only ever handed code that the tests wrote themselves.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import uv

from swefactory.sandbox_protocols import (
    CHECKOUT_DIR,
    ENVIRONMENT_DIR,
    INPUTS_DIR,
    PROJECT_DIR,
    CommandResult,
    EnvironmentSpec,
    Materialised,
    RunUv,
    SandboxSpec,
    UvRun,
)

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
_HOOK = "import os, site; site.addsitedir(os.environ['FAKE_PROJECT_DIR'])\n"


def write_tree(folder: Path, files: Mapping[str, str]) -> Path:
    """`files` (path -> text) below `folder`."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def need_registry(cache: Path) -> None:
    """Skips the test when the package registry cannot be reached from here."""
    command = [uv.find_uv_bin(), "pip", "compile", "-", "--quiet", "--no-deps", "--cache-dir", str(cache)]
    done = subprocess.run(command, input="iniconfig", capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"the package registry cannot be reached: {done.stderr.strip().splitlines()[-1:]}")


def host_uv(cache: Path, pythons: Mapping[str, str]) -> RunUv:
    """uv on this host, which isolates nothing."""

    def run(
        arguments: Sequence[str], *, files: Mapping[str, str], writes: str, python_version: str, timeout_s: float
    ) -> UvRun:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fake-environments-") as name:
            folder = write_tree(Path(name), files)
            options = ["--cache-dir", str(cache), "--python", pythons[python_version], "--no-python-downloads"]
            done = subprocess.run(
                [uv.find_uv_bin(), *arguments, *options],
                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False,
            )  # fmt: skip
            result = CommandResult(done.returncode, done.stdout, time.monotonic() - started)
            written = folder / writes
            return UvRun(result, written.read_bytes() if written.is_file() else None, built=True)

    return run


def _lifted(lock: str) -> list[str]:
    """The bound is for what builds source distributions; what the lock pins is bounded already."""
    names = {*re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)} - {"setuptools", "wheel"}
    return [f"--exclude-newer-package={name}=2999-01-01T00:00:00Z" for name in sorted(names)]


class VenvSandbox:
    """Runs commands in a folder that stands for CHECKOUT_DIR."""

    def __init__(self, root: Path, environment: Path) -> None:
        self.root = root
        self._paths = {
            CHECKOUT_DIR: str(root / "testbed"),
            ENVIRONMENT_DIR: str(environment),
            INPUTS_DIR: str(root / "inputs"),
        }

    def _here(self, text: str) -> str:
        for inside, outside in self._paths.items():
            text = text.replace(inside, outside)
        return text

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
        done = subprocess.run(
            [self._here(part) for part in argv],
            cwd=self._here(cwd),
            env={"PATH": "/usr/bin:/bin", "FAKE_PROJECT_DIR": str(self.root / "project"), **(env or {})},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        return CommandResult(done.returncode, done.stdout, time.monotonic() - started)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        target = Path(self._here(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)

    def read(self, path: str, max_bytes: int = 64 * 2**20) -> bytes:
        return Path(self._here(path)).read_bytes()

    def shell_argv(self) -> list[str]:
        return ["bash"]

    def violation(self) -> str | None:
        return None


class VenvBackend:
    """Virtual environments below `folder`, made by uv for the interpreter that runs the tests, or those given."""

    name = "venv"

    def __init__(self, folder: Path, pythons: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._pythons = dict(pythons or {HERE: sys.executable})
        self.built: list[str] = []
        self.opened: list[SandboxSpec] = []

    def probe(self) -> str | None:
        return None

    def no_network(self) -> str | None:
        return "it is a fake, and gives none"

    def pythons(self) -> Mapping[str, str]:
        return self._pythons

    def materialise(self, spec: EnvironmentSpec) -> Materialised:
        place = self._folder / spec.digest.partition(":")[2][:16]
        if place.exists():
            return Materialised(place.name, 0, 0.0, built=False)
        started = time.monotonic()
        lock = self._folder / f"{place.name}.txt"
        self._folder.mkdir(parents=True, exist_ok=True)
        lock.write_text(spec.lock)
        bound = re.match(r"# exclude-newer: (\S+)", spec.lock)
        self._uv("venv", "--python", self._pythons[spec.python_version], str(place))
        self._uv(
            "pip", "sync", "--require-hashes", "--python", str(place / "bin/python"), str(lock),
            *(["--exclude-newer", bound.group(1), *_lifted(spec.lock)] if bound else []),
        )  # fmt: skip
        [site_packages] = place.glob("lib/python*/site-packages")
        (site_packages / "project_under_test.pth").write_text(_HOOK)
        self.built.append(spec.digest)
        return Materialised(place.name, 1, time.monotonic() - started, built=True)

    def run_uv(
        self,
        arguments: Sequence[str],
        *,
        files: Mapping[str, str],
        writes: str,
        python_version: str,
        timeout_s: float,
    ) -> UvRun:
        run = host_uv(self._cache(), self._pythons)
        return run(arguments, files=files, writes=writes, python_version=python_version, timeout_s=timeout_s)

    def _cache(self) -> Path:
        # Its own cache: one that another interpreter shares keeps what was built there.
        return Path(os.environ.get("SWEFACTORY_TEST_UV_CACHE") or self._folder / "uv-cache")

    def _uv(self, *arguments: str) -> None:
        command = [uv.find_uv_bin(), *arguments, "--quiet", "--cache-dir", str(self._cache()), "--no-python-downloads"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=self._folder, check=False)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def open(self, spec: SandboxSpec) -> Iterator[VenvSandbox]:
        self.opened.append(spec)
        environment = self._folder / self.materialise(spec.environment).locator
        with tempfile.TemporaryDirectory(prefix="fake-environments-") as name:
            root = Path(name)
            shutil.copytree(spec.checkout, root / "testbed", symlinks=True)
            if spec.inputs:
                shutil.copytree(spec.inputs, root / "inputs")
            if spec.project:
                shutil.copytree(spec.project, root / "project")
                for path in (root / "project").glob("*.pth"):
                    path.write_text(path.read_text().replace(CHECKOUT_DIR, str(root / "testbed")))
            assert not (root / "project" / PROJECT_DIR.lstrip("/")).exists()
            yield VenvSandbox(root, environment)

    def sweep(self, live: Callable[[str], bool]) -> int:
        return 0
