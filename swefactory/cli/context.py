"""What every command needs first: settings, and a catalog at the right schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import ValidationError
from sqlalchemy import Engine

from db.engine import check, make_engine, upgrade
from swefactory.config import Settings
from swefactory.errors import UsageError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings(**overrides: object) -> Settings:
    """Settings from the environment, `overrides` first (None counts as not given). Raises UsageError."""
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks the values itself
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise UsageError(f"SWEFACTORY_{name} is {first['input']!r}: {first['msg']}") from error


@contextmanager
def catalog(current: Settings) -> Iterator[Engine]:
    """The catalog's engine, checked. A missing embedded catalog is made: the first command needs no set-up."""
    engine = make_engine(current.catalog_url)
    try:
        embedded = current.home.resolve() / "catalog.db"
        if not current.database_url and not embedded.exists():
            upgrade(engine)
        check(engine)
        yield engine
    finally:
        engine.dispose()
