"""Finds the Python interpreters of this machine. One property: each one it offers was started and named itself.

Looked at, in this order: folders named by the caller, PATH, pyenv's versions (PYENV_ROOT or ~/.pyenv), uv's own and
/usr/bin. Virtual environments stand for the interpreter beneath them; pyenv's shims are skipped, the versions behind
them are not. Of two with the same minor version the newer patch release wins, then the first found.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from swefactory.errors import InfrastructureError

_NAME = re.compile(r"python(\d(\.\d+)?)?")
_TIMEOUT_S = 20
# Runs on 2.7 too. base_prefix is where the interpreter lives, also when asked inside a virtual environment.
_ASK = (
    "import json, sys; print(json.dumps([list(sys.version_info[:3]),"
    " getattr(sys, 'real_prefix', getattr(sys, 'base_prefix', sys.prefix)), sys.prefix,"
    " getattr(getattr(sys, 'implementation', None), 'name', 'cpython')]))"
)


@dataclass(frozen=True)
class Interpreter:
    """One interpreter. `prefix` is the installation to show a sandbox, "/usr" for the system's."""

    version: str  # "3.9"
    full_version: tuple[int, ...]
    path: Path
    prefix: Path


def find_interpreters(extra_folders: Sequence[str] = ()) -> dict[str, Interpreter]:
    """By minor version, oldest first. A broken interpreter is left out."""
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(_inspect, list(_candidates(extra_folders)))
    best: dict[str, Interpreter] = {}
    for found in answers:
        if found is not None and (found.version not in best or found.full_version > best[found.version].full_version):
            best[found.version] = found
    return dict(sorted(best.items(), key=lambda item: item[1].full_version))


def _candidates(extra_folders: Sequence[str]) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in _folders(extra_folders):
        if folder.name == "shims" or not folder.is_dir():
            continue
        for path in sorted(folder.glob("python*")):
            if _NAME.fullmatch(path.name) and os.access(path, os.X_OK) and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _folders(extra_folders: Sequence[str]) -> Iterator[Path]:
    for extra in extra_folders:
        if extra:
            yield from (Path(extra), Path(extra) / "bin", *sorted(Path(extra).glob("*/bin")))
    yield from (Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob("versions/*/bin"))
    yield from sorted(_uv_folder().glob("*/bin"))
    yield from (Path("/usr/local/bin"), Path("/usr/bin"))


def _uv_folder() -> Path:
    """Where `uv python install` puts interpreters; asked of no process, it is a documented place."""
    if named := os.environ.get("UV_PYTHON_INSTALL_DIR"):
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "uv" / "python"


def _inspect(path: Path) -> Interpreter | None:
    """Asks the interpreter itself; None when it does not answer or is no CPython."""
    argv = [str(path), "-E", "-s", "-c", _ASK]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL, check=True)
        numbers, base, prefix, implementation = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        if error.returncode == -signal.SIGKILL:  # not its own doing: a Python less would change recipes
            raise InfrastructureError(f"{path} was killed while it was asked its version; try again") from error
        return None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if implementation != "cpython":
        return None
    version = f"{numbers[0]}.{numbers[1]}"
    own = Path(base) / "bin" / f"python{version}"
    if not own.exists():
        if base != prefix:
            return None
        own = path
    # The prefix as it says it, not resolved: sys.path holds that spelling, and so must the sandbox.
    return Interpreter(version, tuple(numbers), own, Path(base))
