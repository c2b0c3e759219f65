"""The database's clock. One property: all that compares times of several machines reads this one clock."""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Float, Interval, cast, extract, func, literal_column

from db.models import UtcDateTime

_PADDED: ColumnElement[str] = literal_column("'%Y-%m-%d %H:%M:%f000'")


def database_now(connection: Connection, plus_s: float = 0.0) -> ColumnElement[datetime]:
    """The database's clock at the start of the statement."""
    return clock_of(connection.dialect.name, plus_s or None)


def clock_of(dialect: str, plus_s: ColumnElement[float] | float | None = None) -> ColumnElement[datetime]:
    """The same for statements that are built once; SQLite's milliseconds are padded to be compared as text."""
    if dialect == "sqlite":
        later = () if plus_s is None else (func.printf(literal_column("'%+.3f seconds'"), plus_s),)
        return func.strftime(_PADDED, literal_column("'now'"), *later, type_=UtcDateTime())
    clock = func.statement_timestamp(type_=UtcDateTime())
    return clock if plus_s is None else clock + func.make_interval(0, 0, 0, 0, 0, 0, plus_s, type_=Interval())


def seconds_between(
    dialect: str, begun: ColumnElement[datetime], ended: ColumnElement[datetime]
) -> ColumnElement[float]:
    """How long it took, to the millisecond on SQLite."""
    if dialect == "sqlite":
        return (func.julianday(ended, type_=Float()) - func.julianday(begun, type_=Float())) * 86_400.0
    return cast(extract("epoch", ended - begun), Float())
