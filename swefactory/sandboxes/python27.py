"""Lets uv, which serves Python 3.6 and newer, resolve, build and install for 2.7. One property: 2.7 runs all it builds.

uv is handed a program that answers its question about the interpreter in its place and hands everything else on; see
images/python27. What uv then fills is made an installation of 2.7 by finish.sh, in which nothing of this is left.
"""

from pathlib import Path

from db.enums import RejectReason
from swefactory.errors import Rejected
from swefactory.image_files import image_file

_FILES = ("python", "describe.py", "sitecustomize.py", "finish.sh")


def is_described(version: str) -> bool:
    """Whether uv needs the help of this module for an interpreter."""
    return version == "2.7"


def check_served(version: str) -> None:
    """Raises Rejected(NO_INTERPRETER) for a version that no environment can be made for."""
    parts = tuple(int(part) for part in version.split(".") if part.isdigit())
    if parts != (2, 7) and parts < (3, 6):
        detail = f"no environment can be made for Python {version}: 2.7 and 3.6 and newer are served"
        raise Rejected(RejectReason.NO_INTERPRETER, detail)


def write_description(folder: Path, program: str) -> None:
    """Writes the files uv is handed into `folder`; `program` is the interpreter's path where they will be used."""
    folder.mkdir()
    folder.chmod(0o755)  # another user reads them, whatever our umask is
    for name in _FILES:
        text = image_file(f"python27/{name}").read_text().replace("@PROGRAM@", program)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755 if name == "python" else 0o644)
