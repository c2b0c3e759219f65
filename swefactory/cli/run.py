"""`swefactory run` and `swefactory status`: do the queued work, and see how far it is."""

from typing import Annotated

import typer
from sqlalchemy import Engine

from db import jobs, queries
from db.models import JobState, StageName
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import STAGE_COLUMNS, console, progress, show, stage_rows
from swefactory.errors import InfrastructureError
from swefactory.pipeline import RunSummary, run_embedded


def run(
    n_processes: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Work in N processes.")] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Keep waiting for new jobs until Ctrl-C.")] = False,
    sandbox: Annotated[str | None, typer.Option(help="namespace or docker; default SWEFACTORY_SANDBOX.")] = None,
    stages: Annotated[list[StageName] | None, typer.Option("--stage", help="Only these stages (repeatable).")] = None,
) -> None:
    """Do the queued jobs here, with no broker: the embedded mode.

    Stop it at any time with Ctrl-C and run it again: nothing is lost.

    Examples: `swefactory run` · `swefactory run -j 4` · `swefactory run --watch` · `swefactory run --stage crawl`
    """
    current = settings(sandbox=sandbox)
    with catalog(current) as engine:
        with progress(engine):
            summary = run_embedded(current, engine, n_processes=n_processes, watch=watch, stages=stages)
        _print_stages(engine, as_json=False)
        _explain(engine, summary)


def status(as_json: AsJson = False) -> None:
    """Show the jobs of each stage and the funnel.

    Example: `swefactory status --json`
    """
    with catalog(settings()) as engine:
        _print_stages(engine, as_json=as_json)
        if not as_json:
            columns, rows = queries.run(engine, "funnel")
            show(columns, rows, as_json=False, title="funnel", empty="no repository yet")


def _print_stages(engine: Engine, *, as_json: bool) -> None:
    rows = stage_rows(jobs.counts(engine))
    show(STAGE_COLUMNS, rows, as_json=as_json, title="jobs", empty="none; queue a repository: swefactory repo add")


def _explain(engine: Engine, summary: RunSummary) -> None:
    """What is left, and what to do about it. Dead jobs are our fault: exit code 3."""
    n_dead = sum(n for (_, state), n in jobs.counts(engine).items() if state is JobState.DEAD)
    if summary.n_unfinished and summary.next_due_s is not None:
        console.print(
            f"{summary.n_unfinished} jobs wait, the first for {max(0, summary.next_due_s):.0f} s more: "
            "`swefactory query waiting` says why; run again then, or use --watch"
        )
    if n_dead:
        raise InfrastructureError(
            f"{n_dead} jobs are dead after their last attempt: `swefactory query dead` says why, "
            "`swefactory job retry --dead` tries them again"
        )
    console.print("next: swefactory status · swefactory query rejections · swefactory instance list")
