"""An export's folder: written beside its place, then put there in one step. One property: whole, or as it was before.

    OUT/FORMAT/
      manifest.json    what the export holds, a line a row; see swefactory.exports.manifest
      SHA256SUMS       of every other file, in the order of writing: `sha256sum -c SHA256SUMS`
      …                the format's own files

Nothing in it tells when or where it was made: the same catalog and options give the same bytes. Rows are written as
they come, so that a hundred thousand need no more memory than one.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from swefactory.errors import ArtifactError, UsageError
from swefactory.exports.manifest import MANIFEST, Entry, LeftOut, ManifestWriter, is_export

SUMS = "SHA256SUMS"
Row = Mapping[str, object]
_AT_CWD, _EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


# Line ends to Python's splitlines, with which the stock harness reads, though not to JSON, which lets them stand.
_LINE_ENDS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}


def json_line(row: Row) -> bytes:
    """One row of JSON lines: keys sorted, UTF-8; a lone surrogate, which UTF-8 cannot hold, as its escape, and so are
    characters that some readers take for the end of a line."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False).translate(_LINE_ENDS)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, sort_keys=True).encode() + b"\n"


class Lines:
    """A file of JSON lines while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.n_rows = 0

    def write(self, row: Row) -> None:
        line = json_line(row)
        self._file.write(line)
        self._digest.update(line)
        self.n_rows += 1

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class ExportFolder:
    """An export while it is written; a `with` block that ends well puts it at `target`, any other leaves no trace.
    Raises UsageError for a folder there that is no export, ArtifactError when the disk does not take it."""

    def __init__(self, target: Path, export: str, options: Mapping[str, object]) -> None:
        self.target = target
        self._export, self._options = export, options
        self._stack = contextlib.ExitStack()
        self.n_rows = self.n_left_out = 0
        self.manifest_sha256 = ""

    def __enter__(self) -> Self:
        check_place(self.target)
        with _explained(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(dir=self.target.parent, prefix=f".{self.target.name}-"))
            self.path.chmod(0o755)
            self._stack.callback(shutil.rmtree, self.path, ignore_errors=True)
            self._sums = self._stack.enter_context((self.path / SUMS).open("w", encoding="utf-8"))
            self._manifest = ManifestWriter(self.path / MANIFEST, self._export, self._options)
            self._stack.callback(self._manifest.close)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with _explained(self.target), self._stack:
            if kind is None:
                self._finish()
        if isinstance(error, OSError):
            raise _not_written(self.target, error) from error

    # ------------------------------------------------------------ what the formats write

    def row(self, entry: Entry) -> None:
        """Names a row in the manifest. Keys must come in ascending order, each once."""
        self._manifest.row(entry)
        self.n_rows += 1

    def leave_out(self, left_out: LeftOut) -> None:
        """Names what is not in the export, and why."""
        self._manifest.leave_out(left_out)
        self.n_left_out += 1

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> str:
        """Writes one file at a path below the folder; the sha256 of its bytes."""
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        return self.written(name, hashlib.sha256(data).hexdigest())

    def written(self, name: str, sha256: str = "") -> str:
        """Notes a file that somebody else wrote below the folder."""
        if not sha256:
            with (self.path / name).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._sums.write(f"{sha256}  {name}\n")
        return sha256

    @contextlib.contextmanager
    def lines(self, name: str) -> Iterator[Lines]:
        """A file of JSON lines to write rows to."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            lines = Lines(file)
            yield lines
        self.written(name, lines.sha256)

    # ------------------------------------------------------------ the end

    def _finish(self) -> None:
        self._manifest.close()
        self.manifest_sha256 = self.written(MANIFEST)
        self._sums.close()
        for path in (self.path / SUMS, self.path / MANIFEST):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        put_in_place(self.path, self.target)


def check_place(target: Path) -> None:
    """Raises UsageError when something that is no export of ours stands there: it would be replaced."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and (_is_empty(target) or is_export(target)))):
        raise UsageError(f"{target} exists and is no export; nothing there was changed; give --out another folder")


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def put_in_place(made: Path, target: Path) -> None:
    """Renames a folder to its place. What stood there is exchanged with it in one step, where the file system can,
    and lies at `made` then."""
    if not target.exists():
        made.rename(target)
        return
    library = ctypes.CDLL(None, use_errno=True)
    paths = (os.fsencode(made), os.fsencode(target))
    exchange = getattr(library, "renameat2", None)
    if exchange is not None and exchange(_AT_CWD, paths[0], _AT_CWD, paths[1], _EXCHANGE) == 0:
        return
    aside = made.with_name(f"{made.name}-old")
    target.rename(aside)
    made.rename(target)
    shutil.rmtree(aside)


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _not_written(target, error) from error


def _not_written(target: Path, error: OSError) -> ArtifactError:
    return ArtifactError(f"cannot write the export {target}: {error.strerror or error}; nothing there was changed")
