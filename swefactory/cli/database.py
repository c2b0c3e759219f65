"""`swefactory db`: the catalog's schema."""

import typer

from db.engine import check as check_schema
from db.engine import make_engine
from db.engine import upgrade as upgrade_schema
from swefactory.cli.context import settings
from swefactory.cli.output import console

app = typer.Typer(no_args_is_help=True, help="The catalog's schema.")


@app.command()
def upgrade() -> None:
    """Make the catalog, or bring it to this version's schema.

    Example: `SWEFACTORY_DATABASE_URL=postgresql+psycopg://me@host/swefactory swefactory db upgrade`
    """
    engine = make_engine(settings().catalog_url)
    old, new = upgrade_schema(engine)
    console.print(f"catalog is at {new} already" if old == new else f"catalog went from {old or 'nothing'} to {new}")


@app.command()
def check() -> None:
    """Say whether the catalog can be used as it is; exit code 3 when not.

    Example: `swefactory db check`
    """
    engine = make_engine(settings().catalog_url)
    check_schema(engine)
    console.print(f"catalog {engine.url.render_as_string(hide_password=True)} is at this version's schema")
