"""The journal of a rollout in the catalog: what it did and cost, written down while it happens.

One property: no step is billed without a row. An attempt that broke off keeps the rows of what it lost; what another
goes on from becomes that one's. Whoever writes for an attempt that is no longer the newest is told to stop.
"""

from dataclasses import asdict
from datetime import datetime, timedelta

from sqlalchemy import Engine, func, update
from sqlmodel import Session, col, delete, select

from db.engine import session
from db.enums import AttemptWay, ExitStatus
from db.models import Campaign, Rollout, RolloutAttempt, RolloutEvent, RolloutStep, utc_now
from swefactory.journals import Checkpoint, Past, Step, StopOrder

_NO_CHECKPOINT = "no checkpoint was left"


class SqlJournal:
    """One attempt at a rollout; made, it is the newest. `past` is empty until `resume`."""

    is_kept = True

    def __init__(self, engine: Engine, rollout_id: int, label: str) -> None:
        self._engine = engine
        self._rollout_id = rollout_id
        self.past = Past()
        with session(engine) as db:
            before = _newest(db, rollout_id)
            self._attempt = before.number + 1 if before else 1
            is_unfinished = db.get_one(Rollout, rollout_id).finished_at is None
            self.checkpoint = _checkpoint(before) if before and is_unfinished else None
            way = AttemptWay.RESTARTED if before else AttemptWay.FIRST
            detail = "" if not before else _NO_CHECKPOINT if is_unfinished else "it had ended and was asked for again"
            row = RolloutAttempt(rollout_id=rollout_id, number=self._attempt, way=way, detail=detail, label=label)
            db.add(row)
            _start_campaign(db, rollout_id)

    def event(self, number: int, body: str) -> None:
        """Stored when this returns."""
        with session(self._engine) as db:
            row = RolloutEvent(rollout_id=self._rollout_id, attempt=self._attempt, number=number, body=_clean(body))
            db.add(row)

    def step(self, step: Step) -> StopOrder | None:
        """Writes or rewrites the step and bills its campaign the difference."""
        with session(self._engine) as db:
            row = RolloutStep(rollout_id=self._rollout_id, attempt=self._attempt, number=step.number)
            same = {"rollout_id": row.rollout_id, "attempt": row.attempt, "number": row.number}
            row = db.exec(select(RolloutStep).filter_by(**same)).first() or row
            billed = row.cost_usd
            for name, value in asdict(step).items():
                setattr(row, name, list(value) if isinstance(value, tuple) else value)
            db.add(row)
            _bill(db, self._rollout_id, step.cost_usd - billed)
            db.flush()
            return self._order(db)

    def rest(self, n_steps: int, n_events: int) -> None:
        """Nothing: `keep` is told what the sandbox held."""

    def order(self) -> StopOrder | None:
        """Why this rollout must not go on: cancelled, out of its campaign's budget, or another attempt's by now."""
        with session(self._engine, writing=False) as db:
            return self._order(db)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Replaces the checkpoint of this attempt."""
        with session(self._engine) as db:
            row = _attempt(db, self._rollout_id, self._attempt)
            row.n_checkpoint_steps, row.n_checkpoint_events = checkpoint.n_steps, checkpoint.n_events
            row.checkpoint_patch, row.checkpoint_files = checkpoint.patch, checkpoint.files
            row.checkpoint_at = utc_now()
            db.add(row)

    def resume(self, detail: str) -> None:
        """What the attempt before did up to its checkpoint becomes this one's, and `past`."""
        point = self.checkpoint
        assert point is not None
        before = self._attempt - 1
        with session(self._engine) as db:
            for table, column, bound in (
                (RolloutEvent, col(RolloutEvent.number), point.n_events - 1),
                (RolloutStep, col(RolloutStep.number), point.n_steps),
            ):
                mine = update(table).where(
                    col(table.rollout_id) == self._rollout_id, col(table.attempt) == before, column <= bound
                )
                db.execute(mine.values(attempt=self._attempt))
            row = _attempt(db, self._rollout_id, self._attempt)
            row.way, row.detail = AttemptWay.RESUMED, detail
            db.add(row)
        self.keep(point)
        self.past = self._read()

    def restart(self, detail: str) -> None:
        """Says why the checkpoint was not gone on from."""
        with session(self._engine) as db:
            row = _attempt(db, self._rollout_id, self._attempt)
            row.way, row.detail = AttemptWay.RESTARTED, detail
            db.add(row)

    def _read(self) -> Past:
        same = {"rollout_id": self._rollout_id, "attempt": self._attempt}
        with session(self._engine, writing=False) as db:
            events = select(RolloutEvent.body).filter_by(**same).order_by(col(RolloutEvent.number))
            steps = select(RolloutStep).filter_by(**same).order_by(col(RolloutStep.number))
            return Past(tuple(db.exec(events)), tuple(_step(row) for row in db.exec(steps)))

    def _order(self, db: Session) -> StopOrder | None:
        newest = _newest(db, self._rollout_id)
        if newest and newest.number != self._attempt:
            return StopOrder(ExitStatus.CANCELLED, "another worker has taken this rollout over")
        return stop_order(db, db.get_one(Rollout, self._rollout_id))


def stop_order(db: Session, rollout: Rollout) -> StopOrder | None:
    """Whether `rollout` was called off, or its campaign has spent its money or its time."""
    if rollout.cancel_requested_at:
        return StopOrder(ExitStatus.CANCELLED, "it was called off")
    campaign = db.get(Campaign, rollout.campaign_id) if rollout.campaign_id else None
    if campaign is None:
        return None
    if campaign.max_cost_usd is not None and campaign.cost_usd >= campaign.max_cost_usd:
        return _over(campaign, f"the {campaign.max_cost_usd:g} dollars")
    if campaign.max_duration_s is not None and campaign.started_at and utc_now() >= _until(campaign):
        return _over(campaign, f"the {campaign.max_duration_s:g} seconds")
    return None


def _over(campaign: Campaign, what: str) -> StopOrder:
    return StopOrder(ExitStatus.CANCELLED, f"the campaign {campaign.name} has used up {what} it was given")


def _until(campaign: Campaign) -> datetime:
    assert campaign.started_at is not None
    assert campaign.max_duration_s is not None
    return campaign.started_at + timedelta(seconds=campaign.max_duration_s)


def finish(db: Session, rollout: Rollout) -> None:
    """In the transaction that stores a rollout's end: events are in an artifact now, checkpoints served their time, and
    what was billed to lost attempts is added up."""
    newest = _newest(db, rollout.id or 0)
    if newest is None:
        return
    db.execute(delete(RolloutEvent).where(col(RolloutEvent.rollout_id) == rollout.id))
    emptied = update(RolloutAttempt).where(col(RolloutAttempt.rollout_id) == rollout.id)
    db.execute(emptied.values(checkpoint_at=None, checkpoint_patch="", checkpoint_files=b""))
    lost = select(func.sum(RolloutStep.cost_usd)).where(
        RolloutStep.rollout_id == rollout.id, col(RolloutStep.attempt) != newest.number
    )
    rollout.lost_cost_usd = db.exec(lost).one() or 0.0


def _newest(db: Session, rollout_id: int) -> RolloutAttempt | None:
    mine = select(RolloutAttempt).where(RolloutAttempt.rollout_id == rollout_id)
    return db.exec(mine.order_by(col(RolloutAttempt.number).desc())).first()


def _attempt(db: Session, rollout_id: int, number: int) -> RolloutAttempt:
    return db.exec(select(RolloutAttempt).filter_by(rollout_id=rollout_id, number=number)).one()


def _checkpoint(attempt: RolloutAttempt) -> Checkpoint | None:
    if attempt.checkpoint_at is None:
        return None
    return Checkpoint(
        attempt.n_checkpoint_steps, attempt.n_checkpoint_events, attempt.checkpoint_patch, attempt.checkpoint_files
    )


def _start_campaign(db: Session, rollout_id: int) -> None:
    campaign_id = db.get_one(Rollout, rollout_id).campaign_id
    first = update(Campaign).where(col(Campaign.id) == campaign_id, col(Campaign.started_at).is_(None))
    db.execute(first.values(started_at=utc_now()))


def _bill(db: Session, rollout_id: int, cost_usd: float) -> None:
    """In SQL, not by reading first: rollouts of a campaign bill at once."""
    campaign_id = db.get_one(Rollout, rollout_id).campaign_id
    if campaign_id is not None and cost_usd:
        mine = update(Campaign).where(col(Campaign.id) == campaign_id)
        db.execute(mine.values(cost_usd=col(Campaign.cost_usd) + cost_usd))
        db.expire_all()


def _step(row: RolloutStep) -> Step:
    facts = row.model_dump(exclude={"id", "rollout_id", "attempt", "recorded_at", "tools"})
    return Step(**facts, tools=tuple(row.tools))


def _clean(body: str) -> str:
    """PostgreSQL stores no NUL, and UTF-8 no lone surrogate."""
    return body.replace("\0", "").encode("utf-8", "replace").decode()
