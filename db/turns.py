"""Whose turn it is. One property: each choice reads a few index entries of each stage, however many jobs there are.

Within one priority, repositories take turns: the waiting jobs of one get successive turns, and one that had none waits
beside the first in line, not behind the last (start-time fair queueing). So a repository with a hundred thousand pull
requests delays another's ten by at most ten of its own. Each priority has a band of turns, the higher the lower.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, func, or_, select, true, union_all
from sqlmodel import SQLModel

from db.clock import database_now
from db.enums import JobState, StageName

WAITING = (JobState.TODO, JobState.FAILED)
JOB: Table = SQLModel.metadata.tables["job"]
C = JOB.c
HOLD: Table = SQLModel.metadata.tables["stage_hold"]
ORDER = (C.turn, C.id)
_BAND = 2**40  # turns; more jobs than any catalog has
_LINE = 4  # of each stage and state; more only matter when as many claims meet in one instant


def next_turn(connection: Connection, stage: StageName, repository_id: int | None, priority: int) -> int:
    """After its repository's last waiting job of this priority, or beside the first in line when it has none."""
    begin = -priority * _BAND
    waiting = (C.stage == stage, C.state == JobState.TODO, C.turn >= begin, C.turn < begin + _BAND)
    last = select(func.max(C.turn)).where(*waiting, C.repository_id == repository_id).scalar_subquery()
    first = select(func.min(C.turn)).where(*waiting).scalar_subquery()
    of_last, of_first = connection.execute(select(last, first)).one()
    if of_last is not None:
        return int(of_last) + 1
    return begin if of_first is None else int(of_first)


def first_in_line(
    connection: Connection,
    stages: Collection[StageName],
    n: int = _LINE,
    queued: ColumnElement[bool] | None = None,
) -> list[int]:
    """The first `n` claimable jobs of each stage and state, held stages left out; among them are the first of all.
    `queued` says which of the queued ones count, None: all do."""
    conditions = {
        JobState.TODO: _due(connection),
        JobState.FAILED: _due(connection),
        JobState.QUEUED: true() if queued is None else queued,
        JobState.DOING: C.lease_until < database_now(connection),
    }
    wanted = set(stages) - set(held(connection))
    lines = [
        select(C.id).where(C.stage == stage, C.state == state, condition).order_by(*ORDER).limit(n).subquery()
        for stage in sorted(wanted)
        for state, condition in conditions.items()
    ]
    return list(connection.execute(union_all(*(select(line.c.id) for line in lines))).scalars()) if lines else []


def held(connection: Connection) -> list[StageName]:
    """The stages of which no job may begin."""
    return list(connection.execute(select(HOLD.c.stage)).scalars())


def expired(connection: Connection) -> ColumnElement[bool]:
    """Being done, by nobody any more. The stages are named for the index's sake."""
    return and_(C.stage.in_(tuple(StageName)), C.state == JobState.DOING, C.lease_until < database_now(connection))


def claimable(connection: Connection) -> ColumnElement[bool]:
    """Of one job; to find some, see `first_in_line`."""
    waiting = and_(C.state.in_(WAITING), _due(connection))
    return or_(waiting, C.state == JobState.QUEUED, expired(connection))


def locked(connection: Connection, chosen: Select[Any]) -> Select[Any]:
    """Rows another transaction holds are passed over; SQLite has one writer at a time and needs nothing."""
    return chosen.with_for_update(skip_locked=True) if connection.dialect.name == "postgresql" else chosen


def _due(connection: Connection) -> ColumnElement[bool]:
    return C.not_before <= database_now(connection)
