"""Jobs: claims, leases and fences. One property: whatever crashes, each job ends once and by its last holder only.

    todo ──► queued ──► doing ──► succeeded | rejected
      ▲  └───────────────▲ │ └──► failed ──(backoff)──► doing … ──► dead
      └── postpone, release┘       any but an ended one ──► cancelled

A claim takes a lease and a fence number in one statement. Only the claim that holds the present fence may renew
or end the job; an expired lease makes it claimable again, and its attempt stays spent. Leases and waiting times
are measured by the database's clock alone. Nothing here knows what a stage does.
"""

import random
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from sqlalchemy import ColumnElement, Connection, Engine, Update, and_, case, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session

from db import claims
from db.clock import database_now, seconds_between
from db.engine import CatalogError, reading, told
from db.enums import JobState, RejectReason, StageName
from db.models import StageHold, UtcDateTime
from db.turns import HOLD, JOB, WAITING, C, first_in_line, held, next_turn

OPEN = (JobState.TODO, JobState.QUEUED, JobState.DOING, JobState.FAILED)
ENDED = (JobState.SUCCEEDED, JobState.REJECTED, JobState.DEAD, JobState.CANCELLED)
_MAX_DELAY_S = 3600.0
_CLAIM_TRIES = 5


class LeaseLost(RuntimeError):
    """Another holder has this job by now, or it was cancelled; what was worked out must be thrown away."""


@dataclass(frozen=True)
class Claim:
    """The right to work on one job until the lease ends. `attempt` counts this one, from 1."""

    job_id: int
    stage: StageName
    subject_id: int
    attempt: int
    max_attempts: int
    fence: int
    repository_id: int | None = None

    @property
    def label(self) -> str:
        """Marks what this claim leaves outside the catalog, so that it can be swept: "<job>.<fence>"."""
        return f"{self.job_id}.{self.fence}"


def enqueue(
    session: Session,
    stage: StageName,
    subject_id: int,
    *,
    repository_id: int | None = None,
    priority: int = 0,
    max_attempts: int = 3,
    again: bool = False,
) -> bool:
    """Inserts the job unless it stands already, the last of its repository's. `again` re-opens one that has ended; its
    fence keeps growing. True when something became claimable."""
    connection = session.connection()
    now = database_now(connection)
    values: dict[str, Any] = {
        "state": JobState.TODO,
        "priority": priority,
        "repository_id": repository_id,
        "turn": next_turn(connection, stage, repository_id, priority),
        "attempt": 0,
        "max_attempts": max_attempts,
        "not_before": now,
        "lease_owner": "",
        "message": "",
    }
    key = {"stage": stage, "subject_id": subject_id}
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    added = insert(JOB).values(**key, **values, fence=0, created_at=now).on_conflict_do_nothing()
    if connection.execute(added.returning(C.id)).all():
        return True
    if not again:
        return False
    opened = update(JOB).where(C.stage == stage, C.subject_id == subject_id, C.state.in_(ENDED))
    cleared = {"reason": None, "lease_until": None, "started_at": None, "finished_at": None}
    return bool(connection.execute(opened.values(**values, **cleared)).rowcount)


def claim(
    engine: Engine,
    owner: str,
    *,
    lease_s: float,
    stages: Collection[StageName] | None = None,
    job_id: int | None = None,
    before: Collection[int] = (),
) -> Claim | None:
    """The next claimable job (priority, then those of the ids `before`, then turn, then age) of a stage that is not
    held, or None. One whose lease expired on its last attempt becomes dead instead. Two callers never get the same."""
    wanted = tuple(StageName) if stages is None else tuple(stages)
    for _ in range(_CLAIM_TRIES):
        with told(engine), engine.begin() as connection:
            connection.execute(claims.bury(connection.dialect.name))
            found = [*first_in_line(connection, wanted), *before] if job_id is None else [job_id]
            if not found:
                return None
            told_it = {"ids": found, "stages": wanted, "before": tuple(before), "owner": owner, "lease_s": lease_s}
            if row := connection.execute(claims.take(connection.dialect.name), told_it).one_or_none():
                return Claim(*row)
        if job_id is not None:
            return None
    return None  # others were quicker each time; there will be a next time


def renew(engine: Engine, claim: Claim, lease_s: float) -> bool:
    """Lengthens the lease to `lease_s` from now; False when the job is no longer ours."""
    with told(engine), engine.begin() as connection:
        longer = _held(claim).values(lease_until=database_now(connection, lease_s))
        return bool(connection.execute(longer).rowcount)


def succeed(session: Session, claim: Claim) -> None:
    """Ends the job inside the caller's transaction. Raises LeaseLost, which must roll that transaction back."""
    _end(session, claim, JobState.SUCCEEDED, None, "")


def reject(session: Session, claim: Claim, reason: RejectReason, message: str) -> None:
    """Ends the job with a verdict on its subject, as `succeed` does."""
    _end(session, claim, JobState.REJECTED, reason, message)


def fail(engine: Engine, claim: Claim, message: str, *, base_delay_s: float = 5.0) -> JobState | None:
    """Our fault: FAILED until a delay that doubles with each attempt has passed, or DEAD after the last attempt.
    None when the job was no longer ours."""
    if claim.attempt >= claim.max_attempts:
        return _put_back(engine, claim, JobState.DEAD, message)
    delay_s = min(base_delay_s * 2 ** (claim.attempt - 1), _MAX_DELAY_S) * random.uniform(0.5, 1.5)  # noqa: S311
    return _put_back(engine, claim, JobState.FAILED, message, delay_s)


def postpone(engine: Engine, claim: Claim, message: str, retry_after_s: float) -> JobState | None:
    """Nobody's fault: TODO again in `retry_after_s`, and the attempt is given back. None when no longer ours."""
    return _put_back(engine, claim, JobState.TODO, message, retry_after_s, attempt=C.attempt - 1)


def release(engine: Engine, claim: Claim) -> JobState | None:
    """Interrupted: TODO again at once, and the attempt is given back. None when no longer ours."""
    return _put_back(engine, claim, JobState.TODO, "interrupted", attempt=C.attempt - 1)


def dispatchable(
    engine: Engine, limits: Mapping[StageName, int], *, hint_s: float = 120.0
) -> list[tuple[int, StageName]]:
    """Marks due jobs and expired leases as queued, so many that no stage has more than its limit of hints out;
    returns (job_id, stage) for which a hint is to be sent. A hint unanswered for `hint_s` counts as lost."""
    with told(engine), engine.begin() as connection:
        connection.execute(claims.bury(connection.dialect.name))
        return [pair for stage in limits for pair in _queue(connection, stage, limits[stage], hint_s)]


def hold(session: Session, stage: StageName, reason: str) -> None:
    """From now on no job of the stage begins; those being done go on. Holding it again changes the reason."""
    session.merge(StageHold(stage=stage, reason=reason))


def let_go(session: Session, stage: StageName) -> bool:
    """Ends a hold; False when there was none."""
    return bool(session.connection().execute(delete(HOLD).where(HOLD.c.stage == stage)).rowcount)


def holds(engine: Engine) -> dict[StageName, str]:
    """The held stages and why."""
    with told(engine), reading(engine).connect() as connection:
        rows = connection.execute(select(HOLD.c.stage, HOLD.c.reason).order_by(HOLD.c.stage))
        return {row.stage: row.reason for row in rows}


def withdraw(engine: Engine, ids: Collection[int]) -> int:
    """Puts back queued jobs whose hint could not be sent; returns how many."""
    if not ids:
        return 0
    with told(engine), engine.begin() as connection:
        back = update(JOB).where(C.id.in_(tuple(ids)), C.state == JobState.QUEUED)
        return connection.execute(back.values(state=JobState.TODO, lease_until=None)).rowcount


def counts(engine: Engine) -> dict[tuple[StageName, JobState], int]:
    """How many jobs of each stage are in each state; no entry for none."""
    with told(engine), reading(engine).connect() as connection:
        rows = connection.execute(select(C.stage, C.state, func.count()).group_by(C.stage, C.state))
        return {(stage, state): n for stage, state, n in rows}


def ages(engine: Engine) -> dict[tuple[StageName, str], float]:
    """Seconds since the longest running job of each stage began ("doing") and since the longest waiting one could have
    begun ("due"); no entry where there is none."""
    begun = {"doing": (C.state == JobState.DOING, C.started_at), "due": (C.state == JobState.TODO, C.not_before)}
    found = {}
    with told(engine), reading(engine).connect() as connection:
        for name, (condition, at) in begun.items():
            wanted = and_(C.stage.in_(tuple(StageName)), condition)
            rows = select(C.stage, func.min(at, type_=UtcDateTime()), database_now(connection)).where(wanted)
            for stage, oldest, now in connection.execute(rows.group_by(C.stage)):
                found[stage, name] = max(0.0, (now - oldest).total_seconds())
    return found


@dataclass(frozen=True)
class Cost:
    """What jobs of a stage took until their verdict: how many, seconds of the last attempt, attempts, on average."""

    n: int
    seconds: float
    attempts: float


def costs(engine: Engine) -> dict[StageName, Cost]:
    """Measured from the jobs that succeeded or were rejected; no entry for a stage without any."""
    with told(engine), reading(engine).connect() as connection:
        took = seconds_between(connection.dialect.name, C.started_at, C.finished_at)
        ended = (C.stage.in_(tuple(StageName)), C.state.in_((JobState.SUCCEEDED, JobState.REJECTED)))
        means = (func.count(), func.avg(took), func.avg(C.attempt * 1.0))
        rows = connection.execute(select(C.stage, *means).where(*ended, C.started_at.is_not(None)).group_by(C.stage))
        return {stage: Cost(n, float(seconds or 0.0), float(tries)) for stage, n, seconds, tries in rows}


def unfinished(engine: Engine) -> int:
    """How many jobs have not ended."""
    with told(engine), reading(engine).connect() as connection:
        n: int = connection.execute(select(func.count()).where(_open())).scalar_one()
        return n


def next_due_s(engine: Engine, stages: Collection[StageName] | None = None) -> float | None:
    """Seconds until some job (of `stages`, None: of any) can be claimed, if none is added or ended before; 0 when one
    can be now, None when all have ended or are held."""
    due = case(
        (C.state.in_(WAITING), C.not_before),
        (C.state == JobState.DOING, C.lease_until),
        else_=C.created_at,
    )
    with told(engine), reading(engine).connect() as connection:
        wanted = set(StageName if stages is None else stages) - set(held(connection))
        soonest = select(func.min(due, type_=UtcDateTime()), database_now(connection)).where(_open(wanted))
        when: datetime | None
        when, now = connection.execute(soonest).one()
        return None if when is None else max(0.0, (when - now).total_seconds())


def retry(engine: Engine, ids: Collection[int] | None = None) -> int:
    """Re-opens these jobs if they are dead, rejected, cancelled or failed, or every dead one; returns how many."""
    wanted = C.state == JobState.DEAD
    if ids is not None:
        states = (JobState.DEAD, JobState.REJECTED, JobState.CANCELLED, JobState.FAILED)
        wanted = and_(C.id.in_(tuple(ids)), C.state.in_(states))
    with told(engine), engine.begin() as connection:
        values = {"state": JobState.TODO, "attempt": 0, "not_before": database_now(connection), "lease_until": None}
        opened = update(JOB).where(wanted).values(**values, reason=None, message="", finished_at=None)
        return connection.execute(opened).rowcount


def cancel(engine: Engine, ids: Collection[int]) -> int:
    """Ends these jobs unless they have ended; one that is being done loses its lease. Returns how many."""
    with told(engine), engine.begin() as connection:
        ended = update(JOB).where(C.id.in_(tuple(ids)), C.state.in_(OPEN))
        values = {"state": JobState.CANCELLED, "lease_owner": "", "lease_until": None}
        return connection.execute(ended.values(**values, finished_at=database_now(connection))).rowcount


def live_labels(session: Session) -> set[str]:
    """The labels of all claims that may still be working. One whose lease expired counts until it is taken over:
    its holder may only have been slow, and its sandbox must not vanish under it."""
    rows = session.connection().execute(select(C.id, C.fence).where(C.state == JobState.DOING))
    return {f"{job_id}.{fence}" for job_id, fence in rows}


class Heartbeat:
    """Renews a claim's lease in a thread while its context lasts. `lost` turns true when the job is no longer
    ours, or when the catalog could not be reached for a whole lease."""

    def __init__(self, engine: Engine, claim: Claim, lease_s: float) -> None:
        self._engine, self._claim, self._lease_s = engine, claim, lease_s
        self._stop = threading.Event()
        self.lost_event = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {claim.label}", daemon=True)

    @property
    def lost(self) -> bool:
        return self.lost_event.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(self._lease_s / 4):
            try:
                kept, last = renew(self._engine, self._claim, self._lease_s), time.monotonic()
            except CatalogError:  # a restart of the database is survived as long as the lease lasts
                kept = time.monotonic() - last < self._lease_s
            if not kept:
                self.lost_event.set()
                return


def _queue(connection: Connection, stage: StageName, limit: int, hint_s: float) -> list[tuple[int, StageName]]:
    dialect = connection.dialect.name
    room = limit - connection.execute(claims.n_hinted(dialect), {"stage": stage}).scalar_one()
    if room <= 0 or not (found := first_in_line(connection, [stage], limit, lost_hints_only=True)):
        return []
    chosen = connection.execute(claims.choose(dialect), {"ids": found, "n": room})
    if ids := chosen.scalars().all():
        connection.execute(claims.queue(dialect), {"ids": ids, "hint_s": hint_s})
    return [(job_id, stage) for job_id in ids]


def _open(stages: Collection[StageName] = tuple(StageName)) -> ColumnElement[bool]:
    """Not ended. The stages are named for the index's sake."""
    return and_(C.stage.in_(stages), C.state.in_(OPEN))


def _held(claim: Claim) -> Update:
    """The job, if this claim still holds it."""
    return update(JOB).where(C.id == claim.job_id, C.fence == claim.fence, C.state == JobState.DOING)


def _end(session: Session, claim: Claim, state: JobState, reason: RejectReason | None, message: str) -> None:
    connection = session.connection()
    values = {"state": state, "reason": reason, "message": message, "lease_owner": "", "lease_until": None}
    ended = _held(claim).values(**values, finished_at=database_now(connection))
    if not connection.execute(ended).rowcount:
        raise LeaseLost(
            f"job {claim.job_id} ({claim.stage} of {claim.subject_id}) is no longer held by fence {claim.fence}; "
            "its result is thrown away"
        )


def _put_back(
    engine: Engine,
    claim: Claim,
    state: JobState,
    message: str,
    delay_s: float = 0.0,
    attempt: ColumnElement[int] = C.attempt,
) -> JobState | None:
    with told(engine), engine.begin() as connection:
        values: dict[str, Any] = {"state": state, "message": message, "attempt": attempt, "lease_owner": ""}
        values |= {"not_before": database_now(connection, delay_s), "lease_until": None}
        ended = database_now(connection) if state in ENDED else None
        put = _held(claim).values(**values, finished_at=ended)
        return state if connection.execute(put).rowcount else None
