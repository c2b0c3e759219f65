"""`swefactory run` and `swefactory status`: do the queued work, and see how far it is."""

from typing import Annotated

import typer
from sqlalchemy import Engine
from sqlmodel import col, select

from db import jobs, queries
from db.engine import session
from db.enums import JobState, StageName
from db.models import Job, Repository
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import STAGE_COLUMNS, console, progress, show, stage_rows
from swefactory.errors import InfrastructureError
from swefactory.pipeline import RunSummary, run_embedded

_REJECTED_SHOWN = 20


def run(
    n_processes: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Work in N processes.")] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Keep waiting for new jobs until Ctrl-C.")] = False,
    sandbox: Annotated[str | None, typer.Option(help="namespace or docker; default SWEFACTORY_SANDBOX.")] = None,
    stages: Annotated[list[StageName] | None, typer.Option("--stage", help="Only these stages (repeatable).")] = None,
) -> None:
    """Do the queued jobs here, with no broker: the embedded mode.

    Stop it at any time with Ctrl-C and run it again: nothing is lost. Ends with 0 when each job has ended, rejected
    ones too; with 3 when some wait (a rate limit, an outage, a full disk) or are dead.

    Examples: `swefactory run` · `swefactory run -j 4` · `swefactory run --watch` · `swefactory run --stage crawl`
    """
    current = settings(sandbox=sandbox)
    with catalog(current) as engine:
        names = _names(engine)
        with progress(engine):
            summary = run_embedded(current, engine, n_processes=n_processes, watch=watch, stages=stages)
        _print_stages(engine, as_json=False)
        for repository_id, name in _names(engine).items():
            if (former := names.get(repository_id, name)) != name:
                console.print(f"{former} is called {name} now; it is under watch by that name")
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
            _print_api_usage(engine)


def _print_api_usage(engine: Engine) -> None:
    """What the crawls asked of GitHub, each pull request looked at; nothing where none was asked."""
    columns, rows = queries.run(engine, "crawls")
    number = {name: columns.index(name) for name in columns}
    n, points, calls, free = (
        sum(int(str(row[number[name]])) for row in rows) for name in ("pull_requests", "points", "calls", "free_calls")
    )
    if points or calls or free:
        each = f", {points / n:.2g} points and {calls / n:.2g} calls each" if n else ""
        console.print(
            f"GitHub: {n} pull requests looked at for {points} GraphQL points, {calls} REST calls and {free} free "
            f"ones{each} (`swefactory query crawls`, `swefactory query quotas`)"
        )


def _names(engine: Engine) -> dict[int | None, str]:
    with session(engine) as db:
        return {row.id: row.name for row in db.exec(select(Repository))}


def _print_stages(engine: Engine, *, as_json: bool) -> None:
    """The jobs of each stage; for people also why a repository was not crawled: most often its name is misspelt."""
    rows = stage_rows(jobs.counts(engine))
    show(STAGE_COLUMNS, rows, as_json=as_json, title="jobs", empty="none; queue a repository: swefactory repo add")
    if as_json:
        return
    with session(engine) as db:
        rejected = select(Job).where(Job.stage == StageName.CRAWL, Job.state == JobState.REJECTED)
        messages = [job.message for job in db.exec(rejected.order_by(col(Job.id)))]
    for message in messages[:_REJECTED_SHOWN]:
        console.print(f"crawl rejected: {message}", markup=False, soft_wrap=True)
    if len(messages) > _REJECTED_SHOWN:  # a search can find thousands that the filters refuse
        console.print(f"… and {len(messages) - _REJECTED_SHOWN} more crawls: swefactory query rejected")


def _explain(engine: Engine, summary: RunSummary) -> None:
    """What is left, and what to do about it. Work that could not be done now is no success: exit code 3."""
    n_dead = sum(n for (_, state), n in jobs.counts(engine).items() if state is JobState.DEAD)
    left = []
    if n_dead:
        left.append(
            f"{n_dead} {'job is' if n_dead == 1 else 'jobs are'} dead after the last attempt: `swefactory query dead` "
            "says why, `swefactory job retry --dead` tries again"
        )
    if summary.n_unfinished and summary.next_due_s is not None:
        left.append(
            f"{summary.n_unfinished} {'job waits' if summary.n_unfinished == 1 else 'jobs wait'}, the first for "
            f"{summary.next_due_s:.0f} s more ({_why(engine)}); nothing is lost: run again then, or use --watch"
        )
    if summary.n_unfinished and summary.next_due_s is None:
        left.append(
            f"{summary.n_unfinished} {'job waits' if summary.n_unfinished == 1 else 'jobs wait'} in a stage that is "
            "held: `swefactory stage list` says why, `swefactory stage resume STAGE` lets it go on"
        )
    if left:
        raise InfrastructureError("; ".join(left))
    console.print("next: swefactory status · swefactory query rejected · swefactory instance list")


def _why(engine: Engine) -> str:
    """What the first job that waits says; the query has the others."""
    _, rows = queries.run(engine, "waiting")
    messages = [str(row[-1]).strip().splitlines()[-1] for row in rows if str(row[-1]).strip()]
    return messages[0] if messages else "`swefactory query waiting` says why"
