"""`swefactory job`: give jobs another chance, or call them off."""

from typing import Annotated

import typer

from db import jobs
from swefactory.cli.context import catalog, settings
from swefactory.cli.output import console
from swefactory.errors import UsageError

app = typer.Typer(
    no_args_is_help=True, help="Jobs: one step of work on one subject. See `query waiting`, `query dead`."
)


@app.command()
def retry(
    job_ids: Annotated[list[int] | None, typer.Argument(help="Jobs, as `query dead` lists them.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Every dead job.")] = False,
) -> None:
    """Re-open dead jobs, or the named ones that are dead, rejected, cancelled or failed.

    Examples: `swefactory job retry --dead` · `swefactory job retry 17 18`
    """
    if bool(job_ids) is dead:
        raise UsageError("name the jobs to retry, or say --dead for every dead one")
    with catalog(settings()) as engine:
        n_opened = jobs.retry(engine, None if dead else job_ids)
    console.print(f"{n_opened} jobs re-opened" + ("; next: swefactory run" if n_opened else ""))


@app.command()
def cancel(job_ids: Annotated[list[int], typer.Argument(help="Jobs, as `query waiting` lists them.")]) -> None:
    """Call jobs off; the result of one that is being worked on is discarded.

    Example: `swefactory job cancel 17`
    """
    with catalog(settings()) as engine:
        console.print(f"{jobs.cancel(engine, job_ids)} jobs cancelled")
