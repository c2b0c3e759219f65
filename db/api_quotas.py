"""How much each credential may still ask of GitHub, for all processes and machines. One property: no two requests of
one credential start closer together than the pause, and none after GitHub has said that nothing is left.

GitHub counts by user and resource (core, graphql, search); what it says in its headers replaces our own count. Limits
that name no resource (the secondary ones) bind all of them. Times are the database's.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel

from db.clock import database_now
from db.engine import reading, told

RESOURCES = ("core", "graphql", "search")
_QUOTA: Table = SQLModel.metadata.tables["api_quota"]
_C = _QUOTA.c


class SqlQuotas:
    """The Protocol swefactory.protocols.Quotas, in the catalog. `pause_s` lies between the starts of two requests."""

    def __init__(self, engine: Engine, pause_s: float = 0.1) -> None:
        self._engine = engine
        self._pause_s = pause_s

    def take(self, credential: str, resource: str, patience_s: float) -> float:
        """Seconds until the next request may start. Up to `patience_s` its place is taken; beyond that nothing is,
        and the caller comes back later."""
        with told(self._engine), self._engine.begin() as connection:
            row = _row(connection, credential, resource)
            now, left, resets_at = row["now"], row["n_left"], row["resets_at"]
            if resets_at is not None and resets_at <= now:
                left = None
            if left is not None and left <= 0 and resets_at is not None:
                return float((resets_at - now).total_seconds()) + 1
            start = max(now, row["not_before"] or now)
            wait_s = float((start - now).total_seconds())
            if wait_s <= patience_s:
                values: dict[str, Any] = {"not_before": start + timedelta(seconds=self._pause_s)}
                values |= {"n_left": None if left is None else left - 1, "n_asked": _C.n_asked + 1}
                connection.execute(update(_QUOTA).where(_C.id == row["id"]).values(**values))
            return wait_s

    def note(self, credential: str, resource: str, n_left: int, n_limit: int, resets_at: datetime) -> None:
        """What GitHub's headers say. Answers can overtake each other: within one window the least counts."""
        with told(self._engine), self._engine.begin() as connection:
            row = _row(connection, credential, resource)
            same_window = row["resets_at"] is not None and abs(row["resets_at"] - resets_at) <= timedelta(seconds=5)
            if same_window and row["n_left"] is not None:
                n_left = min(n_left, row["n_left"])
            values = {"n_left": n_left, "n_limit": n_limit, "resets_at": resets_at}
            connection.execute(update(_QUOTA).where(_C.id == row["id"]).values(**values))

    def block(self, credential: str, wait_s: float, resource: str | None = None) -> None:
        """No request before `wait_s` from now: of one resource, or of any (a secondary limit)."""
        with told(self._engine), self._engine.begin() as connection:
            for name in RESOURCES if resource is None else (resource,):
                row = _row(connection, credential, name)
                until = max(row["now"] + timedelta(seconds=wait_s), row["not_before"] or row["now"])
                connection.execute(update(_QUOTA).where(_C.id == row["id"]).values(not_before=until))


def quotas(engine: Engine) -> list[Mapping[str, Any]]:
    """Every row, by credential and resource."""
    with told(engine), reading(engine).connect() as connection:
        return [dict(row) for row in connection.execute(select(_QUOTA).order_by(_C.credential, _C.resource)).mappings()]


def _row(connection: Connection, credential: str, resource: str) -> dict[str, Any]:
    """The quota's row, made when it is missing and locked, and the database's time as `now`."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    made = insert(_QUOTA).values(credential=credential, resource=resource, n_asked=0).on_conflict_do_nothing()
    connection.execute(made)
    wanted = select(_QUOTA).where(_C.credential == credential, _C.resource == resource)
    if connection.dialect.name == "postgresql":
        wanted = wanted.with_for_update()
    row = connection.execute(wanted).mappings().one()
    now = connection.execute(select(database_now(connection))).scalar_one()  # after the lock was waited for
    return {**row, "now": now}
