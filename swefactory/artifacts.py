"""Content-addressed files: logs, locks, trajectories. One property: a stored file is whole, or not there.

    ROOT/sha256/ab/abcdef….z      (zlib)
    ROOT/.parts/                  being written; what killed processes left goes with the next one's first file

The digest is of the uncompressed bytes, so that equal content is one file whoever writes it.
"""

import hashlib
import os
import zlib
from pathlib import Path

from swefactory import held_folders
from swefactory.errors import ArtifactError
from swefactory.protocols import ArtifactRef

_ALGORITHM = "sha256"
_PARTS = ".parts"


def digest_of(content: bytes) -> str:
    """The name of these bytes: "sha256:<hex>"."""
    return f"{_ALGORITHM}:{hashlib.sha256(content).hexdigest()}"


def key_of(digest: str) -> str:
    """Where a store keeps what is named `digest`, below its root. Raises ArtifactError for what is no name."""
    algorithm, _, name = digest.partition(":")
    if algorithm != _ALGORITHM or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise ArtifactError(f"{digest!r} is not an artifact's name; it looks like sha256:<64 hex digits>")
    return f"{algorithm}/{name[:2]}/{name}.z"


def packed(content: bytes) -> bytes:
    """As every store keeps it."""
    return zlib.compress(content, 6)


def unpacked(stored: bytes, digest: str, place: str) -> bytes:
    """The bytes named `digest`, checked against it. Raises ArtifactError, which names `place`."""
    try:
        content = zlib.decompress(stored)
    except zlib.error as error:
        raise ArtifactError(f"artifact {digest} at {place} cannot be read: {error}") from error
    if digest_of(content) != digest:
        raise ArtifactError(f"artifact {digest} at {place} is damaged: its bytes no longer match its name")
    return content


class LocalArtifacts:
    """The artifact store in a folder; safe for several processes and for sudden death."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._is_swept = False

    def put(self, content: bytes, media_type: str) -> ArtifactRef:
        """Writes `content` unless it is there: temporary file, fsync, rename."""
        digest = digest_of(content)
        path = self._root / key_of(digest)
        if not path.exists():
            try:
                self._write(path, packed(content))
            except OSError as error:
                raise ArtifactError(
                    f"cannot store artifact {digest[:19]}… ({len(content)} bytes) below {self._root}: "
                    f"{error.strerror}; free some space or make the folder writable, then run again"
                ) from error
        return ArtifactRef(digest, len(content), media_type)

    def get(self, digest: str) -> bytes:
        """The bytes named `digest`, checked against it."""
        path = self._root / key_of(digest)
        try:
            stored = path.read_bytes()
        except FileNotFoundError as error:
            raise ArtifactError(
                f"artifact {digest} is not below {self._root}; was the folder moved or cleaned?"
            ) from error
        except OSError as error:
            raise ArtifactError(f"artifact {digest} at {path} cannot be read: {error}") from error
        return unpacked(stored, digest, str(path))

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_swept:
            held_folders.sweep(self._root / _PARTS)
            self._is_swept = True
        with held_folders.held_folder(self._root / _PARTS) as folder, (folder / path.name).open("wb") as part:
            part.write(content)
            part.flush()
            os.fsync(part.fileno())
            os.replace(part.name, path)
