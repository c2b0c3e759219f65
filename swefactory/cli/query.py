"""`swefactory query`: the named SQL queries over the catalog."""

from typing import Annotated

import typer

from db import queries
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import show
from swefactory.errors import UsageError


def query(
    name: Annotated[str | None, typer.Argument(help="The query's name; without it, their list.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a named query, or list them.

    Examples: `swefactory query` · `swefactory query funnel` · `swefactory query rejections --json`
    """
    if name is None:
        show(["name", "says"], [[info.name, info.description] for info in queries.names()], as_json=as_json)
        return
    known = [info.name for info in queries.names()]
    if name not in known:
        raise UsageError(f"no query {name!r}; there are: {', '.join(known)}")
    with catalog(settings()) as engine:
        columns, rows = queries.run(engine, name)
        show(columns, rows, as_json=as_json, title=name, empty="no rows")
