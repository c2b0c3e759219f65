"""What every `swefactory export FORMAT` says and notes. One property: a row that is gone is named, with why."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import typer
from sqlalchemy import Engine
from sqlmodel import Session, select

from db.engine import session
from db.enums import ExportFormat, InstanceStatus
from db.models import Export, TaskInstance, utc_now
from swefactory.cli.output import console
from swefactory.errors import EXIT_FINDINGS
from swefactory.exports.diffs import Difference, differences
from swefactory.exports.folder import ExportFolder
from swefactory.exports.manifest import MANIFEST, is_export, read_manifest

_MANY = 20


def exported(engine: Engine, kind: ExportFormat, out: Path, write: Callable[[Path], ExportFolder]) -> ExportFolder:
    """Writes OUT/FORMAT, notes it in the catalog, and says what changed since the export that stood there."""
    target = out / kind.value
    with TemporaryDirectory(prefix="swefactory-manifest-") as name:
        before = Path(name)
        if is_export(target):
            shutil.copy(target / MANIFEST, before / MANIFEST)
        folder = write(target)
        with session(engine) as db:
            record(db, kind, folder)
        console.print(f"{target}: {folder.n_rows} rows, manifest sha256 {folder.manifest_sha256}", soft_wrap=True)
        if (before / MANIFEST).exists():
            with session(engine, writing=False) as db:
                old, new = read_manifest(before), read_manifest(target)
                _say_changes(differences(old, new, lambda key: fate(db, key)))
    return folder


def ended(folder: ExportFolder) -> None:
    """Says what was left out; ends with 1 when anything was."""
    for n, left_out in enumerate(read_manifest(folder.target).left_out()):
        if n == _MANY:
            console.print("… and more, see manifest.json")
            break
        console.print(f"left out {left_out.key}: {left_out.why}", markup=False, soft_wrap=True)
    if folder.n_left_out:
        console.print(f"{folder.n_left_out} left out; `swefactory instance revalidate --all`, run, or --uncertified")
        raise typer.Exit(EXIT_FINDINGS)


def say_left_out(folder: ExportFolder) -> None:
    """Says how many were left out for which reason: of rollouts, what is unfit is no finding."""
    counts = Counter(left_out.why for left_out in read_manifest(folder.target).left_out())
    for why, n in counts.most_common(_MANY):
        console.print(f"{n} left out: {why}", markup=False, soft_wrap=True)


def record(db: Session, kind: ExportFormat, folder: ExportFolder) -> None:
    """Notes in the catalog what was written where; a repeated export updates its row."""
    path = str(folder.target.resolve())
    row = db.exec(select(Export).where(Export.format == kind, Export.path == path)).first()
    row = row or Export(format=kind, path=path, n_rows=0, sha256="")
    row.n_rows, row.sha256, row.created_at = folder.n_rows, folder.manifest_sha256, utc_now()
    db.add(row)


def fate(db: Session, key: str) -> str:
    """What the catalog knows of an instance that an export no longer holds."""
    instance = db.exec(select(TaskInstance).where(TaskInstance.instance_id == key.partition("/")[0])).first()
    if instance is None:
        return "the catalog does not know it"
    if instance.status is not InstanceStatus.REJECTED:
        return ""
    reason = instance.reject_reason.value if instance.reject_reason else "no reason"
    return f"rejected since: {reason}, {instance.reject_detail}"


def _say_changes(found: Iterator[Difference]) -> None:
    """Every row that went, and how many came or changed."""
    counts: Counter[str] = Counter()
    for each in found:
        counts[each.kind] += 1
        if each.kind == "removed":
            console.print(f"removed {each.key}: {each.why}", markup=False, soft_wrap=True)
    if counts:
        told = ", ".join(f"{counts[kind]} {kind}" for kind in ("added", "removed", "changed"))
        console.print(f"since the export that stood there: {told}")
