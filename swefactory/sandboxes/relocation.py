"""Copies an interpreter to a place it was not built for. One property: the copy names the old place nowhere it matters.

Left out are the packages installed beside it (they could hold a newer release of the project under test), its own
test-suite but for what projects import of it, and static libraries.
"""

import os
import shutil
from pathlib import Path

from swefactory.errors import InfrastructureError
from swefactory.sandboxes.interpreters import Interpreter

_KEPT_OF_TEST = {"__init__.py", "support", "regrtest.py", "libregrtest"}
_LEFT_OUT = {"__pycache__", "idlelib", "turtledemo", "lib2to3_tests"}


def copy_interpreter(interpreter: Interpreter, target: Path, new_prefix: str) -> None:
    """Copies it to `target` so that it works at `new_prefix`. Raises InfrastructureError when it cannot be read."""
    old = interpreter.prefix
    try:
        for name in ("bin", "include", "lib"):
            if (old / name).is_dir():
                shutil.copytree(old / name, target / name, symlinks=True, ignore=_ignored)
        for path in _texts(target):
            content = path.read_bytes()
            path.write_bytes(content.replace(os.fsencode(old), new_prefix.encode()))
    except (OSError, shutil.Error) as error:
        raise InfrastructureError(f"cannot copy the interpreter {interpreter.path}: {error}") from error


def _ignored(folder: str, names: list[str]) -> set[str]:
    here = Path(folder)
    if here.name == "site-packages":
        return set(names)
    if here.name == "test" and here.parent.name.startswith("python"):
        return set(names) - _KEPT_OF_TEST
    # A program that pip put beside the interpreter names a package that is not copied.
    mine = {name for name in names if here.name != "bin" or name.startswith("python")}
    return {name for name in names if name in _LEFT_OUT or name.endswith((".a", ".pyc")) or name not in mine}


def _texts(target: Path) -> list[Path]:
    """Files that tell builds where the interpreter is; the program itself finds its place at run time."""
    lib = target / "lib"
    found = [*lib.glob("python*/_sysconfigdata*.py"), *lib.glob("python*/config-*/*"), *lib.glob("pkgconfig/*.pc")]
    found += [path for path in (target / "bin").iterdir() if path.name.endswith("-config")]
    return [path for path in found if path.is_file() and not path.is_symlink()]
