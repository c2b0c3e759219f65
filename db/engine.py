"""Engines and schema. One property: a catalog at another schema than the code's is refused, never guessed at.

Two databases, one behaviour: a transaction that writes takes its lock when it begins (SQLite: BEGIN IMMEDIATE,
write-ahead log, synchronous FULL), so it never fails half-way because a reader wants to become a writer; a
transaction opened with `writing=False` cannot write on either. Make an engine after the fork, never before.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session

if TYPE_CHECKING:
    from alembic.config import Config

BUSY_TIMEOUT_S = 30
_IDLE_IN_TRANSACTION_MS = 120_000  # a stopped process must not hold row locks for ever
_UPGRADE_LOCK = 0x5EFAC7  # any constant: two upgrades of one catalog wait for each other
_READ_ONLY = "catalog_read_only"
_UPGRADING = "catalog_upgrading"


class CatalogError(RuntimeError):
    """The catalog cannot be used as it is; the message says why and what to do."""


def make_engine(url: str) -> Engine:
    """An engine for `sqlite:///PATH` or `postgresql://…`; connects to nothing yet. Raises CatalogError."""
    try:
        parsed = make_url(url)
        match parsed.get_backend_name():
            case "sqlite":
                return _sqlite(parsed)
            case "postgresql":
                return _postgresql(parsed)
            case other:
                raise CatalogError(f"no catalog can live in {other!r}; give a sqlite:/// or postgresql:// URL")
    except ArgumentError as error:
        raise CatalogError(f"not a database URL: {error}; give a sqlite:/// or postgresql:// URL") from error


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def configure(connection: object, _: ConnectionPoolEntry) -> None:
        _configure_sqlite(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        reading = options.get(_READ_ONLY, False)
        connection.exec_driver_sql("PRAGMA query_only = ON" if reading else "PRAGMA query_only = OFF")
        # a migration rebuilds tables that others refer to; see sqlite.org/lang_altertable.html
        connection.exec_driver_sql(f"PRAGMA foreign_keys = {'OFF' if options.get(_UPGRADING, False) else 'ON'}")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _configure_sqlite(connection: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    try:
        cursor.execute("PRAGMA synchronous = FULL")
    finally:
        cursor.close()


def _postgresql(url: URL) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 10,
            "application_name": "swefactory",
            "options": f"-c timezone=UTC -c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MS}",
        },
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(_READ_ONLY, False):
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    return engine


@contextmanager
def session(engine: Engine, *, writing: bool = True) -> Iterator[Session]:
    """One transaction: committed at the end, rolled back on any error. Objects stay readable afterwards.
    Raises CatalogError when the database cannot be reached, is locked for too long, or is full."""
    with told(engine), Session(engine if writing else reading(engine), expire_on_commit=False) as open_session:
        with open_session.begin():
            yield open_session


def reading(engine: Engine) -> Engine:
    """The same engine, whose transactions cannot write and wait for no writer."""
    return engine.execution_options(**{_READ_ONLY: True})


@contextmanager
def told(engine: Engine) -> Iterator[None]:
    """Turns the database's own failures into a CatalogError that names the database."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        if isinstance(error, DBAPIError) and not (
            isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
        ):
            raise  # a broken rule of the schema is a bug and keeps its traceback
        raise CatalogError(f"the catalog {name_of(engine)} failed: {_reason(error)}") from error


def name_of(engine: Engine) -> str:
    """The catalog's file, or its URL with the password masked."""
    path = _file(engine)
    return str(path) if path else engine.url.render_as_string(hide_password=True)


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Brings the schema to the code's; makes the SQLite file and its folder. Returns (old, new) revisions.
    Raises CatalogError, also for a catalog that is newer than this code."""
    from alembic import command

    path = _file(engine)
    if path:
        _make_folder(path)
    with _explained(engine):
        if path:
            _set_write_ahead_log(engine)
        upgrading = engine.execution_options(**{_UPGRADING: True})
        with upgrading.begin() as connection:  # one transaction: a failed upgrade leaves the old schema
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
            config = alembic_config(connection)
            old, known = _current(connection), _known(config)
            if old is not None and old not in known:
                raise CatalogError(_newer(engine, old))
            command.upgrade(config, "head")
            if path and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                raise CatalogError(f"{name_of(engine)}: a row of {broken[0]} refers to nothing; the upgrade was undone")
            return old, known[0]


def check(engine: Engine, *, writing: bool = True) -> None:
    """Raises CatalogError, with a sentence of its own for each case: no catalog yet, an older or a newer schema,
    a read-only file, not a database, cannot connect."""
    path = _file(engine)
    if path and not path.exists():
        raise CatalogError(f"there is no catalog at {path} yet; run `swefactory db upgrade`")
    with _explained(engine), (engine if writing else reading(engine)).begin() as connection:
        current = _current(connection)
        known = _known(alembic_config(connection))
        if writing and current:  # a write that changes nothing: a read-only file opens and even begins without a word
            connection.execute(text("UPDATE alembic_version SET version_num = version_num WHERE 1 = 0"))
    if current is None:
        raise CatalogError(f"{name_of(engine)} holds no catalog yet; run `swefactory db upgrade`")
    if current not in known:
        raise CatalogError(_newer(engine, current))
    if current != known[0]:
        raise CatalogError(
            f"the catalog {name_of(engine)} is at the older schema {current}, this swefactory needs {known[0]}; "
            "run `swefactory db upgrade`"
        )


def alembic_config(connection: Connection) -> "Config":
    """Alembic's configuration, in code, so that migrations are found inside the installed package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "db:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _known(config: "Config") -> list[str]:
    """Every revision this code knows, newest first."""
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]


def _newer(engine: Engine, revision: str) -> str:
    return (
        f"the catalog {name_of(engine)} is at schema {revision}, which this swefactory does not know: "
        "it was made by a newer one; upgrade swefactory"
    )


def _file(engine: Engine) -> Path | None:
    """The file of an SQLite catalog; None in memory and for a server."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or ":memory:" in database:
        return None
    return Path(database.removeprefix("file:").partition("?")[0])


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogError(
            f"cannot make the folder {path.parent} for the catalog: {error.strerror}; check its owner and free space, "
            "or set SWEFACTORY_HOME"
        ) from error


def _set_write_ahead_log(engine: Engine) -> None:
    """Kept in the file itself, so it is set once and not by every connection, which would need a write lock."""
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL").fetchone()
    finally:
        connection.close()


@contextmanager
def _explained(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
        raise CatalogError(_explanation(engine, _reason(error))) from error


_EXPLANATIONS: tuple[tuple[str, Callable[[str, str], str]], ...] = (
    ("not a database", lambda name, _: f"{name} is not a database; move it away, then run `swefactory db upgrade`"),
    ("malformed", lambda name, _: f"{name} is damaged; restore it from a copy, or move it away and start again"),
    ("readonly", lambda name, _: f"the catalog {name} is read-only; check its owner, mode and file system"),
    ("read-only", lambda name, _: f"the catalog {name} is read-only; connect to the primary server"),
    ("unable to open", lambda name, _: f"cannot open the catalog {name}; is its folder absent or read-only?"),
    ("locked", lambda name, _: f"the catalog {name} was locked by another process for {BUSY_TIMEOUT_S} s; try again"),
    ("already exists", lambda name, why: f"{name} holds tables of something else: {why}; give swefactory its own"),
    ("is full", lambda name, _: f"the disk of the catalog {name} is full; free some space and try again"),
    ("", lambda name, why: f"cannot connect to the catalog {name}: {why}; check the address and that the server is up"),
)


def _explanation(engine: Engine, reason: str) -> str:
    return next(explain(name_of(engine), reason) for key, explain in _EXPLANATIONS if key in reason.lower())


def _reason(error: Exception) -> str:
    """The driver's own words, on one line."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(original).split()).rstrip(".")
