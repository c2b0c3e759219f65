"""Built extension modules on disk. One property: any of them can go at any time, for it can be built again.

CACHE/extensions/HEX.tar     the modules built from one state of the sources; HEX over all that can change them
"""

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KeptExtensions:
    """Those below `cache`."""

    cache: Path

    def get(self, key: str) -> bytes | None:
        """The archive of that key, if it stands."""
        with contextlib.suppress(FileNotFoundError):
            return self._path(key).read_bytes()
        return None

    def put(self, key: str, tar: bytes) -> None:
        """Whole or not at all."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(6)}.part")
        part.write_bytes(tar)
        part.rename(path)

    def n_bytes(self) -> int:
        """What they take on the disk."""
        found = 0
        for path in self._all():
            with contextlib.suppress(FileNotFoundError):
                found += path.stat().st_blocks * 512
        return found

    def drop(self) -> int:
        """Removes them all; the bytes that went."""
        n_bytes = self.n_bytes()
        for path in self._all():
            path.unlink(missing_ok=True)
        return n_bytes

    def _path(self, key: str) -> Path:
        return self.cache / "extensions" / f"{key}.tar"

    def _all(self) -> list[Path]:
        return list((self.cache / "extensions").glob("*.tar"))
