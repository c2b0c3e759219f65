"""`swefactory export`: read-only copies out of the catalog."""

from pathlib import Path
from typing import Annotated

import typer

from db.engine import session
from db.models import ExportFormat
from swefactory.artifacts import LocalArtifacts
from swefactory.cli.context import catalog, settings
from swefactory.cli.output import console
from swefactory.config import Settings
from swefactory.exports import swebench, trajectories
from swefactory.exports.writer import Written, record, write_jsonl

app = typer.Typer(no_args_is_help=True, help="Exports: read-only copies out of the catalog.")

Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write into; made when missing.")]


@app.command("swebench")
def swebench_(
    out: Out = Path("exports"),
    uncertified: Annotated[
        bool,
        typer.Option("--uncertified", help="Also those whose certificate is missing, old or of other patches."),
    ] = False,
) -> None:
    """Validated task instances as SWE-bench JSONL: OUT/swebench.jsonl.

    Ends with 1 when instances were left out because their certificate does not hold.

    Example: `swefactory export swebench --out exports`
    """
    current = settings()
    with catalog(current) as engine, session(engine) as db:
        refused = {} if uncertified else swebench.uncertified(db, current.revalidate_days)
    _say(write(current, ExportFormat.SWEBENCH, out, uncertified=uncertified))
    for instance_id, why in refused.items():
        console.print(f"left out {instance_id}: {why}", markup=False, soft_wrap=True)
    if refused:
        console.print(f"{len(refused)} left out; `swefactory instance revalidate --all`, run, or --uncertified")
        raise typer.Exit(1)


@app.command("trajectories")
def trajectories_(
    out: Out = Path("exports"),
    suspicious: Annotated[
        bool, typer.Option("--suspicious", help="Also those whose patch may have fooled the tests.")
    ] = False,
) -> None:
    """Resolved trajectories in OpenAI's messages format: OUT/trajectories.jsonl.

    Example: `swefactory export trajectories --out exports`
    """
    _say(write(settings(), ExportFormat.TRAJECTORIES, out, suspicious=suspicious))


def write(
    current: Settings, kind: ExportFormat, out: Path, *, uncertified: bool = False, suspicious: bool = False
) -> Written:
    """Writes OUT/<kind>.jsonl and notes it in the catalog."""
    with catalog(current) as engine, session(engine) as db:
        match kind:
            case ExportFormat.SWEBENCH:
                rows = swebench.rows(db, () if uncertified else swebench.uncertified(db, current.revalidate_days))
            case ExportFormat.TRAJECTORIES:
                rows = trajectories.rows(db, LocalArtifacts(current.artifacts_dir), suspicious=suspicious)
        written = write_jsonl(rows, out / f"{kind.value}.jsonl")
        record(db, kind, written)
    return written


def _say(written: Written) -> None:
    console.print(f"{written.path}: {written.n_rows} rows, sha256 {written.sha256}", soft_wrap=True)
