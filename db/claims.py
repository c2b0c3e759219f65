"""The statements of claims and hints. One property: each is built once a process, so that a claim costs what the
database does and not what building and compiling SQL takes, which is several times as much.

What changes from call to call is a parameter; they are named in each docstring.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import BindParameter, Float, Select, Update, and_, bindparam, case, func, literal, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from db.clock import clock_of
from db.enums import JobState
from db.turns import HOLD, JOB, ORDER, C, claimable, expired, locked, lost_hint, word

_IDS: BindParameter[Any] = bindparam("ids", expanding=True)


@lru_cache
def take(dialect: str) -> ReturningUpdate[Any]:
    """Claims the first of the jobs `ids` that nobody else is taking and whose stage is one of `stages` and not held,
    those of `before` first within their priority, for `owner` and for `lease_s`."""
    held_stage = C.stage.in_(select(HOLD.c.stage))
    open_here = and_(claimable(dialect), C.stage.in_(bindparam("stages", expanding=True)), ~held_stage)
    first = case((C.id.in_(bindparam("before", expanding=True)), 0), else_=1)
    chosen = select(C.id).where(C.id.in_(_IDS), open_here).order_by(C.priority.desc(), first, *ORDER).limit(1)
    taken = update(JOB).where(C.id == locked(dialect, chosen).scalar_subquery(), open_here)
    values = {
        "state": JobState.DOING,
        "attempt": C.attempt + 1,
        "fence": C.fence + 1,
        "lease_owner": bindparam("owner"),
        "lease_until": clock_of(dialect, bindparam("lease_s", type_=Float())),
        "started_at": clock_of(dialect),
        "finished_at": None,
        "reason": None,
    }
    told_back = (C.id, C.stage, C.subject_id, C.attempt, C.max_attempts, C.fence, C.repository_id)
    return taken.values(**values).returning(*told_back)


@lru_cache
def bury(dialect: str) -> Update:
    """A lease that expired on the last attempt: the job kills its workers, so it is dead."""
    lost = and_(expired(dialect), C.attempt >= C.max_attempts)
    chosen = locked(dialect, select(C.id).where(lost))
    message = literal("the worker ") + C.lease_owner + " was lost during the last attempt"
    values = {"state": JobState.DEAD, "message": message, "finished_at": clock_of(dialect), "lease_until": None}
    return update(JOB).where(C.id.in_(chosen), lost).values(**values)


@lru_cache
def n_hinted(dialect: str) -> Select[Any]:
    """How many jobs of `stage` have a hint out that may still be answered."""
    waiting = (C.stage == bindparam("stage"), C.state == word(JobState.QUEUED), ~lost_hint(dialect))
    return select(func.count()).where(*waiting)


@lru_cache
def choose(dialect: str) -> Select[Any]:
    """The first `n` of the jobs `ids` that are still to be had. Read before they are changed, because a plan may run a
    subquery with LIMIT twice."""
    found = select(C.id).where(C.id.in_(_IDS), claimable(dialect)).order_by(*ORDER).limit(bindparam("n"))
    return locked(dialect, found)


@lru_cache
def queue(dialect: str) -> Update:
    """Marks the jobs `ids` as hinted at; the hint counts as lost after `hint_s`."""
    until = clock_of(dialect, bindparam("hint_s", type_=Float()))
    queued = update(JOB).where(C.id.in_(_IDS), claimable(dialect))
    return queued.values(state=JobState.QUEUED, lease_owner="", lease_until=until)
