"""The database's clock. One property: all that compares times of several machines reads this one clock."""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Interval, func

from db.models import UtcDateTime


def database_now(connection: Connection, plus_s: float = 0.0) -> ColumnElement[datetime]:
    """The database's clock at the start of the statement; SQLite's milliseconds are padded to be compared as text."""
    if connection.dialect.name == "sqlite":
        return func.strftime("%Y-%m-%d %H:%M:%f000", "now", f"{plus_s:+.3f} seconds", type_=UtcDateTime())
    clock = func.statement_timestamp(type_=UtcDateTime())
    return clock + func.make_interval(0, 0, 0, 0, 0, 0, plus_s, type_=Interval()) if plus_s else clock
