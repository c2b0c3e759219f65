"""JSON lines files, written whole or not at all. One property: the same rows give the same bytes."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, select

from db.models import Export, ExportFormat, utc_now
from swefactory.errors import ArtifactError

Row = Mapping[str, object]


@dataclass(frozen=True)
class Written:
    """A file that was exported; `sha256` is the hex digest of its bytes."""

    path: Path
    n_rows: int
    sha256: str


def write_jsonl(rows: Iterable[Row], path: Path) -> Written:
    """Streams `rows` into `path`, keys sorted, through a temporary file beside it. Raises ArtifactError."""
    digest, n_rows = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as part:
            try:
                for row in rows:
                    line = json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
                    part.write(line)
                    digest.update(line)
                    n_rows += 1
                part.flush()
                os.fsync(part.fileno())
                os.chmod(part.name, 0o644)
                os.replace(part.name, path)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError as error:
        raise ArtifactError(f"cannot write export {path}: {error.strerror}; nothing there was changed") from error
    return Written(path, n_rows, digest.hexdigest())


def record(db: Session, kind: ExportFormat, written: Written) -> None:
    """Notes in the catalog what was written where; a repeated export updates its row."""
    path = str(written.path.resolve())
    row = db.exec(select(Export).where(Export.format == kind, Export.path == path)).first()
    row = row or Export(format=kind, path=path, n_rows=0, sha256="")
    row.n_rows, row.sha256, row.created_at = written.n_rows, written.sha256, utc_now()
    db.add(row)
