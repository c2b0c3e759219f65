"""manifest.json: what an export holds and what it left out, a line each. One property: it is read as it is written,
line by line, so that two exports of any size can be compared.

    {"format": 1, "export": "swebench", "swefactory": "0.1.0", "options": {…}, "rows": [
    {"key": …, "sha256": …, "certificate": …, "license": …, "swefactory": …, "fields": {NAME: 8 hex digits, …}},
    …
    ], "left_out": [
    {"key": …, "why": …},
    …
    ], "n_rows": …, "n_left_out": …}

`sha256` is of the row's fields, `fields` the beginnings of each field's own hash, which tell what changed; the
certificate is named by the hash of its text, `swefactory` is the version of this product that issued it.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from swefactory import __version__
from swefactory.errors import UsageError

MANIFEST = "manifest.json"
FORMAT = 1
_FIELD_DIGITS = 8


@dataclass(frozen=True)
class Entry:
    """A row as the manifest names it."""

    key: str
    sha256: str
    certificate: str = ""  # sha256:… of its text
    license: str = ""
    swefactory: str = ""  # the version that issued the certificate
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """What an export leaves out although it was asked for, and why."""

    key: str
    why: str


def canonical(value: object) -> bytes:
    """The bytes that are hashed for a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def entry_of(
    key: str, row: Mapping[str, object], *, certificate: Mapping[str, object] | None = None, license_: str = ""
) -> Entry:
    """The entry of a row of JSON values."""
    fields = {name: hashlib.sha256(canonical(value)).hexdigest()[:_FIELD_DIGITS] for name, value in sorted(row.items())}
    return Entry(
        key=key,
        sha256=hashlib.sha256(canonical(row)).hexdigest(),
        certificate=f"sha256:{hashlib.sha256(canonical(certificate)).hexdigest()}" if certificate else "",
        license=license_,
        swefactory=str((certificate or {}).get("swefactory", "")),
        fields=fields,
    )


class ManifestWriter:
    """Writes a manifest; what is left out waits in a file of its own until the rows are through."""

    def __init__(self, path: Path, export: str, options: Mapping[str, object]) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._waiting: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._n_rows = self._n_left_out = 0
        self._last = ""
        head = {"format": FORMAT, "export": export, "swefactory": __version__, "options": dict(options)}
        self._file.write(json.dumps(head, sort_keys=True)[:-1] + ', "rows": [')

    def row(self, entry: Entry) -> None:
        if self._n_rows and entry.key <= self._last:
            raise ValueError(f"row {entry.key!r} comes after {self._last!r}: keys must ascend, each once")
        facts = {name: value for name, value in vars(entry).items() if value}
        self._file.write(("," if self._n_rows else "") + "\n" + json.dumps(facts, sort_keys=True))
        self._last, self._n_rows = entry.key, self._n_rows + 1

    def leave_out(self, left_out: LeftOut) -> None:
        self._waiting.write(("," if self._n_left_out else "") + "\n" + json.dumps(vars(left_out), sort_keys=True))
        self._n_left_out += 1

    def close(self) -> None:
        """Writes the rest; a second call does nothing."""
        if self._file.closed:
            return
        self._file.write('\n], "left_out": [')
        self._waiting.seek(0)
        shutil.copyfileobj(self._waiting, self._file)
        self._file.write(f'\n], "n_rows": {self._n_rows}, "n_left_out": {self._n_left_out}}}\n')
        self._waiting.close()
        self._file.close()


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Manifest:
    """A manifest on disk; `rows` and `left_out` read it anew each time."""

    path: Path
    head: Mapping[str, Any]

    def rows(self) -> Iterator[Entry]:
        """In the order of their keys."""
        return (Entry(**line) for line in self._lines() if "sha256" in line)

    def left_out(self) -> Iterator[LeftOut]:
        return (LeftOut(**line) for line in self._lines() if "why" in line)

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("{") and not line.startswith('{"export"'):
                    yield json.loads(line.removesuffix("\n").removesuffix(","))


def is_export(folder: Path) -> bool:
    """Whether an export of ours lies there."""
    try:
        read_manifest(folder)
    except UsageError:
        return False
    return True


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export's folder. Raises UsageError for any other folder."""
    path = folder / MANIFEST
    try:
        with path.open(encoding="utf-8") as file:
            head = json.loads(file.readline().removesuffix("\n") + "]}")
        if head["format"] != FORMAT:
            raise UsageError(f"{path} is of format {head['format']}, this version reads {FORMAT}; export it again")
        return Manifest(path, head)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} is no export: it has no manifest.json of ours ({error})") from error
