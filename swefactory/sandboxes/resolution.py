"""Runs uv's resolver where others' code may run. One property: that code never writes what a later resolution reads.

    SHARED                       uv's cache; only uv itself ever writes it: here, and where it fills environments
    FOLDER/checked-VERSION       that this uv was seen to build nothing behind the bar
    FOLDER/.parts/RANDOM/work    cwd of one run: its input files, and the file it writes
    FOLDER/.parts/RANDOM/cache   the cache of one run that builds, thrown away with it

Resolving runs others' code only where a source distribution must be built to know its requirements. The first try has
the shared cache, and before the folder in which uv would make its build environments a bar that nobody can write
through: it gives the very answer of an ordinary run, or fails at the first build. Only then comes a second try with
builds, as another user, with a cache of its own and no credentials. A wheels-only run would be no such first try: it
takes older releases instead of failing.
"""

import contextlib
import io
import os
import re
import secrets
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from swefactory.sandbox_protocols import CommandResult, Limits, UvRun
from swefactory.sandboxes.index_settings import network_settings
from swefactory.sandboxes.interpreters import Interpreter
from swefactory.sandboxes.isolated_commands import run_isolated
from swefactory.sandboxes.isolation import BUILDER_UID, Isolated, Mount, Network, Owner, owner
from swefactory.sandboxes.python27 import is_described, write_description
from swefactory.sandboxes.user_network import shared_because, write_resolver

WRITTEN_BYTES = 8 * 2**20  # no lock is longer
BUILDS = "builds-v0"  # below uv's cache, where it makes the environments of builds
_UV, _WORK, _CACHE, _LINKS = "/opt/uv/uv", "/opt/work", "/opt/cache", "/opt/links"
_UV27 = "/opt/uv27"
_BARRED = re.compile(rf"(Read-only file system|Permission denied).*{BUILDS}|{BUILDS}.*(Read-only|Permission)")
_GIB = 2**30
_LIMITS = Limits(8 * _GIB, n_processes=1024, file_bytes=2 * _GIB, disk_bytes=8 * _GIB, output_bytes=2**20)
_SEEDS = ("simple-v*", "flat-index-v*", "wheels-v*", "interpreter-v*")
_STALE_PART_S = 24 * 3600
_PROBE = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "barred"\nbackend-path = ["."]\n',
    "PKG-INFO": "Metadata-Version: 2.1\nName: barred\nVersion: 1\n",
    "barred.py": "",
}


@dataclass(frozen=True)
class Resolutions:
    """Runs of uv below `folder`, with its cache at `shared`. `builds` is what the bar is put before; a wrong name is
    noticed by the check."""

    folder: Path
    shared: Path
    builds: str = BUILDS

    def run(
        self,
        arguments: Sequence[str],
        *,
        files: Mapping[str, str],
        writes: str,
        interpreter: Interpreter,
        timeout_s: float,
    ) -> UvRun:
        """See SandboxBackend.run_uv."""
        deadline = time.monotonic() + timeout_s
        argv = [*arguments, "--python", _program(interpreter)]
        if self._bar_holds(interpreter):
            barred = self._barred(argv, files, writes, interpreter, timeout_s)
            if not is_barred(barred.result):
                return barred
        left_s = max(1.0, deadline - time.monotonic())
        return self._building(argv, files, writes, interpreter, left_s)

    def sweep(self) -> None:
        """Removes what crashed runs left behind, a day after."""
        for part in (self.folder / ".parts").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _STALE_PART_S:
                    shutil.rmtree(part, ignore_errors=True)

    def _barred(
        self, argv: Sequence[str], files: Mapping[str, str], writes: str, interpreter: Interpreter, timeout_s: float
    ) -> UvRun:
        """With the shared cache and the index's credentials: none but uv runs."""
        (self.shared / self.builds).mkdir(parents=True, exist_ok=True)
        with self._part(files) as part, owner(BUILDER_UID) as who:
            if self.shared.stat().st_uid != who.uid:
                who.give(self.shared)
            uv = _isolated(argv, part, self.shared, interpreter, with_secrets=True)
            result = _run(part, replace(uv, hidden=(f"{_CACHE}/{self.builds}",)), who, timeout_s)
            return UvRun(result, _written(part / "work" / writes), built=False)

    def _building(
        self, argv: Sequence[str], files: Mapping[str, str], writes: str, interpreter: Interpreter, timeout_s: float
    ) -> UvRun:
        """With a cache that starts with what the shared one knows of indexes and wheels, and no credentials."""
        with self._part(files) as part, owner() as who:
            cache = part / "cache"
            cache.mkdir()
            seeds = [str(seed) for name in _SEEDS for seed in self.shared.glob(name)]
            if seeds:  # a file that another run replaces meanwhile is fetched again
                copying = ["cp", "-a", "--reflink=auto", "--", *seeds, str(cache)]
                subprocess.run(copying, capture_output=True, timeout=600, check=False)
            who.give(cache)
            result = _run(part, _isolated(argv, part, cache, interpreter, with_secrets=False), who, timeout_s)
            return UvRun(result, _written(part / "work" / writes), built=True)

    def _bar_holds(self, interpreter: Interpreter) -> bool:
        """Whether this uv builds nothing behind the bar; tried once for each version of it, with a package of ours."""
        mark = self.folder / f"checked-{version('uv')}"
        if mark.exists():
            return True
        with self._part({"in": "barred\n"}) as part, owner(BUILDER_UID) as who:
            (part / "cache").mkdir()
            (part / "cache" / self.builds).mkdir()
            write_probe(part / "links")
            who.give(part / "cache")
            _open_to_all(part / "links")
            argv = ["pip", "compile", "in", "--no-index", "--find-links", _LINKS, "--color=never", "--quiet"]
            argv += ["--python", _program(interpreter)]
            uv = _isolated(argv, part, part / "cache", interpreter, with_secrets=False)
            mounts = (*uv.mounts, Mount(part / "links", _LINKS))
            result = _run(part, replace(uv, mounts=mounts, hidden=(f"{_CACHE}/{self.builds}",)), who, 60)
        if is_barred(result):
            mark.touch()
        return mark.exists()

    @contextlib.contextmanager
    def _part(self, files: Mapping[str, str]) -> Iterator[Path]:
        """A run's folder, with its input files."""
        part = self.folder / ".parts" / secrets.token_hex(6)
        (part / "work").mkdir(parents=True)
        try:
            for name, text in files.items():
                (part / "work" / name).write_text(text)
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)
            if part.exists():  # folders that a build had locked against its own user
                subprocess.run(["chmod", "-R", "u+rwX", "--", str(part)], capture_output=True, timeout=600, check=False)
                shutil.rmtree(part, ignore_errors=True)


def is_barred(result: CommandResult) -> bool:
    """Whether uv failed because it would have had to build."""
    return result.exit_code not in (0, None) and _BARRED.search(result.output.decode(errors="replace")) is not None


def _program(interpreter: Interpreter) -> str:
    """What uv is told to resolve for."""
    return f"{_UV27}/python" if is_described(interpreter.version) else str(interpreter.path)


def _isolated(
    argv: Sequence[str], part: Path, cache: Path, interpreter: Interpreter, *, with_secrets: bool
) -> Isolated:
    import uv

    settings = network_settings(with_secrets=with_secrets)
    network: Network = "host" if with_secrets or shared_because(settings.env) else "user"
    (part / "tmp").mkdir()
    prefix = interpreter.prefix
    described = part / "uv27"
    if is_described(interpreter.version):
        write_description(described, str(interpreter.path))
    mounts = (
        Mount(part / "tmp", "/tmp", writable=True),  # noqa: S108 - a private one, inside
        Mount(part / "work", _WORK, writable=True),
        Mount(cache, _CACHE, writable=True),
        Mount(Path(uv.find_uv_bin()), _UV),
        *settings.mounts,
        *(() if prefix.is_relative_to("/usr") else (Mount(prefix, str(prefix)),)),
        *((Mount(described, _UV27),) if described.exists() else ()),
        *((Mount(write_resolver(part), "/etc/resolv.conf"),) if network == "user" else ()),
    )
    env = {**settings.env, "UV_CACHE_DIR": _CACHE, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    env |= {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: S108
    return Isolated((_UV, *argv), mounts, _LIMITS, env=env, cwd=_WORK, network=network)


def _run(part: Path, uv: Isolated, who: Owner, timeout_s: float) -> CommandResult:
    _open_to_all(part / "work", part / "tmp")
    who.give(part / "work", part / "tmp")
    return run_isolated(part, uv, who, timeout_s=timeout_s, watched=[part])


def _written(path: Path) -> bytes | None:
    """What was left as the file asked for. Not through a link, nor from a pipe: a build may have put one there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > WRITTEN_BYTES:
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(WRITTEN_BYTES)


def _open_to_all(*folders: Path) -> None:
    for folder in folders:
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o644)


def write_probe(folder: Path) -> None:
    """A source distribution that asks to be built, for the check of the bar, and `in`, which requires it."""
    folder.mkdir()
    (folder / "in").write_text("barred\n")
    with tarfile.open(folder / "barred-1.tar.gz", mode="w:gz") as archive:
        for name, text in _PROBE.items():
            member = tarfile.TarInfo(f"barred-1/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
