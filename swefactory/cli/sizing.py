"""`swefactory sizing`: workers and disk for a funnel, from what this catalog measured."""

from pathlib import Path
from typing import Annotated

import typer

from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import show
from swefactory.sizing import PUBLISHED, DiskNeed, Funnel, StageNeed, disk_needs, measure, stage_needs


def sizing(
    repositories: Annotated[int, typer.Option(min=1, help="Repositories to crawl.")] = PUBLISHED.repositories,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates they give.")] = PUBLISHED.candidates,
    instances: Annotated[int, typer.Option(min=1, help="Instances of them that hold.")] = PUBLISHED.instances,
    trajectories: Annotated[int, typer.Option(min=1, help="Rollouts to run.")] = PUBLISHED.trajectories,
    times: Annotated[int, typer.Option("--times", min=1, help="So many times all of it.")] = 1,
    days: Annotated[float, typer.Option("--days", min=0.01, help="In how many days it is to be done.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Compute workers and disk for a funnel from the jobs, environments and artifacts of this catalog.

    A worker is one process of its stage; what this catalog has not measured is left open.

    Examples: `swefactory sizing` · `swefactory sizing --times 10 --days 60` · `swefactory sizing --repositories 500`
    """
    current = settings()
    funnel = Funnel(repositories, candidates, instances, trajectories).times(times)
    with catalog(current) as engine:
        measured = measure(engine)
    mirrors = _bytes_each(current.mirrors, measured.counts.get("repositories", 0))
    rows = [_of_stage(need, days) for need in stage_needs(measured, funnel)]
    rows += [_of_disk(need) for need in disk_needs(measured, funnel, mirrors)]
    columns = ["what", "n", "each", "in_all", "needed"]
    show(columns, rows, as_json=as_json, title=f"{funnel.repositories:,} repositories in {days:g} days")


def _of_stage(need: StageNeed, days: float) -> list[object]:
    if need.n_jobs is None or need.seconds_each is None or need.worker_hours is None:
        return [f"{need.stage} jobs", "not measured", "", "", ""]
    workers = need.n_workers(days)
    assert workers is not None
    each = f"{need.seconds_each:.1f} s"
    return [f"{need.stage} jobs", need.n_jobs, each, f"{need.worker_hours:,.0f} h", f"{workers:.1f} workers"]


def _of_disk(need: DiskNeed) -> list[object]:
    if need.n is None or need.bytes_each is None or need.n_bytes is None:
        return [need.what, "not measured", "", "", ""]
    return [need.what, need.n, f"{need.bytes_each / 1e6:.2f} MB", "", f"{need.n_bytes / 1e9:,.1f} GB"]


def _bytes_each(folder: Path, n: int) -> float | None:
    """Of the mirrors of this home; other machines may have more."""
    if not folder.is_dir() or not n:
        return None
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / n
