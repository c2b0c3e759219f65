"""`swefactory`: the admin's command line. One property: a foreseen error is one sentence and its exit code.

Exit codes: 0 ok, 1 findings, 2 usage, 3 infrastructure, 130 interrupted. A rejected subject is a verdict and leaves 0;
work that had to be put off (a rate limit, an outage, a full disk) leaves 3.
"""

import logging
import sys
from typing import Annotated

import typer

from swefactory import __version__
from swefactory.cli import (
    agent,
    benchmark,
    database,
    demo,
    doctor,
    environment,
    export,
    images,
    importing,
    instance,
    job,
    launcher,
    metrics,
    query,
    repo,
    rollout,
    run,
    sizing,
    stage,
)
from swefactory.cli.output import console, errors
from swefactory.errors import exit_code
from swefactory.pipeline import interrupt_once

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="swefactory",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "From GitHub history to validated, sealed software-engineering tasks and graded agent trajectories.\n\n"
        "Start with `swefactory demo` (offline but for the package registry, no token), or:\n\n"
        "`swefactory repo add pallets/click --limit 20` · `swefactory run -j 2` · `swefactory status`"
    ),
)
app.add_typer(repo.app, name="repo")
app.add_typer(instance.app, name="instance")
app.add_typer(environment.app, name="environment")
app.add_typer(agent.app, name="agent")
app.add_typer(rollout.app, name="rollout")
app.add_typer(job.app, name="job")
app.add_typer(stage.app, name="stage")
app.add_typer(export.app, name="export")
app.add_typer(database.app, name="db")
app.add_typer(images.app, name="images")
app.add_typer(benchmark.app, name="benchmark")
app.command("import")(importing.import_)
app.command("run")(run.run)
app.command("status")(run.status)
app.command("query")(query.query)
app.command("metrics")(metrics.metrics)
app.command("sizing")(sizing.sizing)
app.command("launcher")(launcher.launcher)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens to standard error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options of every command; all settings are SWEFACTORY_* variables, `swefactory doctor` lists them."""
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    interrupt_once()
    try:
        app()
    except (KeyboardInterrupt, SystemExit) as ended:  # typer turns the first into the second
        if isinstance(ended, SystemExit) and ended.code != EXIT_INTERRUPTED:
            raise
        errors.print("interrupted: what was being worked on was given back; go on with `swefactory run`")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        errors.print(f"swefactory: {error}", markup=False, soft_wrap=True)
        sys.exit(code)


if __name__ == "__main__":
    main()
