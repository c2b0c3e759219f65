"""Byte code that environments share. One property: it is what an interpreter made of that very source.

FOLDER/VERSION/HEX.pyc    HEX over the source's content, its time, which byte code repeats, and its path below lib,
                          which byte code names

Environments hold it by hard links. What a build left as byte code is removed first: it may be of another source. The
tests that packages bring along get none: a sixth of all byte code, and hardly anything imports them.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from swefactory.sandboxes.python27 import is_described

_PARTS = "__pycache__"
_BESIDE = "2.7"  # puts byte code beside its source
LEFT_OUT = r"/site-packages/(.*/)?tests?/"  # in the words of `compileall -x`; images/install.sh has it, too
_CHECK = """
import marshal, os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        if name.endswith(".pyc"):
            with open(os.path.join(folder, name), "rb") as file:
                marshal.loads(file.read()[int(sys.argv[2]):])
"""


@dataclass(frozen=True)
class KeptByteCode:
    """That below `folder`, which is on the file system of the environments it is laid into."""

    folder: Path

    def lay(self, lib: Path, version: str) -> dict[Path, Path]:
        """Links what is kept into an environment's `lib`, in which nobody else is at work; where the rest will lie
        once compiled, and where that is kept."""
        missing: dict[Path, Path] = {}
        for source in list(_sources(lib, version)):
            if re.search(LEFT_OUT, f"/{source.relative_to(lib)}"):
                continue
            code = _code_of(source, version)
            kept = self.folder / version / f"{_key(source, lib)}.pyc"
            if not code.parent.exists():
                code.parent.mkdir()
                code.parent.chmod(0o755)  # another user reads it, whatever our umask is
            try:
                os.link(kept, code)
            except OSError:  # not kept, or it has as many names as the file system allows
                missing[code] = kept
        return missing

    def keep(self, compiled: dict[Path, Path]) -> None:
        """Keeps what `lay` missed, as far as it was compiled since: not every source can be."""
        for code, kept in compiled.items():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                os.link(code, kept)

    def drop(self) -> int:
        """Removes what no environment holds; the bytes that went."""
        return drop_unheld(self.folder.glob("*/*.pyc"))


def drop_unheld(paths: Iterable[Path]) -> int:
    """Removes the files that have no other name; the bytes that went."""
    n_bytes = 0
    for path in paths:
        if (status := path.stat()).st_nlink == 1:
            path.unlink()
            n_bytes += status.st_blocks * 512
    return n_bytes


def _sources(lib: Path, version: str) -> Iterator[Path]:
    """Every plain Python file below `lib`, not through links. Removes the byte code that is found on the way."""
    pending = [lib]
    while pending:
        for entry in list(os.scandir(pending.pop())):
            path = Path(entry.path)
            if entry.name == _PARTS:
                shutil.rmtree(path) if entry.is_dir(follow_symlinks=False) else path.unlink()
            elif entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif entry.name.endswith(".py") and entry.is_file(follow_symlinks=False):
                yield path
            elif version == _BESIDE and entry.name.endswith(".pyc"):
                path.unlink()


def _code_of(source: Path, version: str) -> Path:
    """Where an interpreter of `version` looks for it."""
    if version == _BESIDE:
        return source.with_suffix(".pyc")
    return source.parent / _PARTS / f"{source.stem}.cpython-{version.replace('.', '')}.pyc"


def _key(source: Path, lib: Path) -> str:
    about = f"{source.relative_to(lib)}\0{int(source.stat().st_mtime)}\0"
    return hashlib.sha256(os.fsencode(about) + source.read_bytes()).hexdigest()


def compile_argv(program: str, version: str, folder: str) -> list[str]:
    """Compiles what is below `folder`, with no site module and so no .pth file in effect."""
    at_once = () if is_described(version) else ("-j", "2")
    return [program, *_alone(version), "-m", "compileall", "-q", "-x", LEFT_OUT, *at_once, folder]


def check_argv(program: str, version: str, folder: str) -> list[str]:
    """Fails where byte code below `folder` is not whole: on a full disk compileall writes half of it and is content."""
    header_bytes = {"2.7": "8", "3.6": "12"}.get(version, "16")
    return [program, *_alone(version), "-c", _CHECK, folder, header_bytes]


def _alone(version: str) -> tuple[str, ...]:
    return ("-E", "-s", "-S") if is_described(version) else ("-I", "-S")
