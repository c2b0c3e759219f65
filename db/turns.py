"""Whose turn it is. One property: each choice reads a few index entries of each stage, however many jobs there are.

Within one priority, repositories take turns: the waiting jobs of one get successive turns, and one that had none waits
beside the first in line, not behind the last (start-time fair queueing). So a repository with a hundred thousand pull
requests delays another's ten by at most ten of its own. Each priority has a band of turns, the higher the lower.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Subquery,
    Table,
    and_,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlmodel import SQLModel

from db.clock import clock_of
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
    connection: Connection, stages: Collection[StageName], n: int = _LINE, *, lost_hints_only: bool = False
) -> list[int]:
    """Claimable jobs of these stages, held ones left out; the first `n` of all are among them. `lost_hints_only` leaves
    out the queued ones whose hint may still be answered."""
    wanted = set(stages) - set(held(connection))
    if not wanted:
        return []
    lines = _lines(connection.dialect.name, tuple(sorted(wanted)), n, lost_hints_only)
    return list(connection.execute(lines).scalars())


@lru_cache(maxsize=256)  # building and compiling it anew would take several times what the database does
def _lines(dialect: str, stages: tuple[StageName, ...], n: int, lost_hints_only: bool) -> CompoundSelect[Any]:
    """One line for each stage and state of which there can be many, where the index gives the order, and one for
    all stages' jobs in hand. Without a parameter, so that PostgreSQL keeps its plan."""
    due, now = C.not_before <= clock_of(dialect), clock_of(dialect)
    lines = [
        _line(and_(C.stage == word(stage), C.state == word(state), due), n) for stage in stages for state in WAITING
    ]
    here = C.stage.in_([word(stage) for stage in stages])
    hinted = lost_hint(dialect) if lost_hints_only else true()
    lines += [_line(and_(here, C.state == word(JobState.QUEUED), hinted), n)]
    lines += [_line(and_(here, C.state == word(JobState.DOING), C.lease_until < now), n)]
    return union_all(*(select(line.c.id) for line in lines))


def _line(condition: ColumnElement[bool], n: int) -> Subquery:
    return select(C.id).where(condition).order_by(*ORDER).limit(literal_column(str(n))).subquery()


def word(value: StageName | JobState) -> ColumnElement[Any]:
    """Written into the statement: a parameter for each would cost more than the search."""
    return literal_column(f"'{value}'")


def held(connection: Connection) -> list[StageName]:
    """The stages of which no job may begin."""
    return list(connection.execute(select(HOLD.c.stage)).scalars())


def lost_hint(dialect: str) -> ColumnElement[bool]:
    """Of a queued job: nobody has answered its hint in time. Its `lease_until` says until when."""
    return or_(C.lease_until.is_(None), C.lease_until < clock_of(dialect))


def expired(dialect: str) -> ColumnElement[bool]:
    """Being done, by nobody any more. The stages are named for the index's sake."""
    every = C.stage.in_([word(stage) for stage in StageName])
    return and_(every, C.state == word(JobState.DOING), C.lease_until < clock_of(dialect))


def claimable(dialect: str) -> ColumnElement[bool]:
    """Of one job; to find some, see `first_in_line`. One whose last lease expires is to be buried (claims.bury), also
    when that happens between the two statements of one transaction."""
    waiting = and_(C.state.in_([word(state) for state in WAITING]), C.not_before <= clock_of(dialect))
    lost = and_(expired(dialect), C.attempt < C.max_attempts)
    return or_(waiting, C.state == word(JobState.QUEUED), lost)


def locked(dialect: str, chosen: Select[Any]) -> Select[Any]:
    """Rows another transaction holds are passed over; SQLite has one writer at a time and needs nothing."""
    return chosen.with_for_update(skip_locked=True) if dialect == "postgresql" else chosen
