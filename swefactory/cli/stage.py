"""`swefactory stage`: hold the work of a stage, for the whole cluster, and let it go on."""

from typing import Annotated

import typer

from db import jobs
from db.engine import session
from db.enums import StageName
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import console, show

app = typer.Typer(no_args_is_help=True, help="Stages: hold the work of one, and let it go on.")


@app.command()
def hold(
    stage: Annotated[StageName, typer.Argument(help="The stage of which no job shall begin.")],
    reason: Annotated[str, typer.Option("--reason", help="Shown to whoever wonders.")] = "",
) -> None:
    """Let no job of a stage begin, on any machine; those being done go on, queuing goes on.

    Example: `swefactory stage hold rollout --reason "the model server is being moved"`
    """
    with catalog(settings()) as engine, session(engine) as db:
        jobs.hold(db, stage, reason)
    console.print(f"{stage.value} is held; next: swefactory stage resume {stage.value}")


@app.command()
def resume(stage: Annotated[StageName, typer.Argument(help="The stage to let go on.")]) -> None:
    """Let the jobs of a held stage begin again.

    Example: `swefactory stage resume rollout`
    """
    with catalog(settings()) as engine, session(engine) as db:
        was_held = jobs.let_go(db, stage)
    console.print(f"{stage.value} goes on" if was_held else f"{stage.value} was not held")


@app.command("list")
def list_stages(as_json: AsJson = False) -> None:
    """Show each stage, and whether it is held and why.

    Example: `swefactory stage list`
    """
    with catalog(settings()) as engine:
        held = jobs.holds(engine)
    rows = [(stage.value, "yes" if stage in held else "no", held.get(stage, "")) for stage in StageName]
    show(("stage", "held", "reason"), rows, as_json=as_json, title="stages", empty="")
