"""Journals of rollouts in the catalog: what is written stays, what was lost is on record, and budgets hold."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from db.engine import session
from db.enums import AttemptWay, ExitStatus
from db.models import Campaign, Rollout, RolloutAttempt, RolloutEvent, RolloutStep, utc_now
from swefactory.journals import Checkpoint, Step
from swefactory.rollout_journals import SqlJournal, finish, stop_order
from tests.instance_rows import add_rollout_rows

STEP = Step(1, "reply-0", 3, n_prompt_tokens=100, cost_usd=0.5, tools=("terminal",))


@pytest.fixture
def engine(catalog: Engine) -> Engine:
    """Rollout 1 of a campaign with two dollars, and rollout 2 of the same."""
    with session(catalog) as db:
        db.add(Campaign(name="c", max_cost_usd=2.0))
        db.flush()
        for rollout in add_rollout_rows(db, 2):
            rollout.campaign_id = 1
    return catalog


def attempts(engine: Engine) -> list[tuple[int, AttemptWay, str]]:
    with session(engine, writing=False) as db:
        rows = db.exec(select(RolloutAttempt).order_by(col(RolloutAttempt.number)))
        return [(row.number, row.way, row.detail) for row in rows]


def steps(db: Session) -> list[tuple[int, int, float]]:
    rows = db.exec(select(RolloutStep).order_by(col(RolloutStep.attempt), col(RolloutStep.number)))
    return [(row.attempt, row.number, row.cost_usd) for row in rows]


def test_what_is_written_is_there_before_the_rollout_ends(engine: Engine) -> None:
    journal = SqlJournal(engine, 1, "7.1")
    journal.event(0, '{"kind": "a\0\ud800"}')
    assert journal.step(STEP) is None
    assert journal.step(replace(STEP, tools_s=2.0, n_errors=1)) is None
    with session(engine, writing=False) as db:
        assert [row.body for row in db.exec(select(RolloutEvent))] == ['{"kind": "a?"}']
        (row,) = db.exec(select(RolloutStep))
        assert (row.n_prompt_tokens, row.tools, row.tools_s, row.n_errors) == (100, ["terminal"], 2.0, 1)
        assert db.get_one(Campaign, 1).cost_usd == 0.5, "the second telling of a step bills nothing more"


def test_an_attempt_goes_on_from_the_checkpoint_and_what_was_lost_stays_on_record(engine: Engine) -> None:
    first = SqlJournal(engine, 1, "7.1")
    for number in range(5):
        first.event(number, f'"{number}"')
    for number in (1, 2):
        first.step(replace(STEP, number=number))
    first.keep(Checkpoint(n_steps=1, n_events=3, patch="diff", files=b"tar"))
    second = SqlJournal(engine, 1, "7.2")
    assert second.checkpoint == Checkpoint(1, 3, "diff", b"tar")
    second.resume("from step 1")
    assert (second.past.events, second.past.steps) == (('"0"', '"1"', '"2"'), (STEP,))
    second.event(3, '"else"')
    assert attempts(engine)[1:] == [(2, AttemptWay.RESUMED, "from step 1")]
    with session(engine) as db:
        assert steps(db) == [(1, 2, 0.5), (2, 1, 0.5)]
        rollout = db.get_one(Rollout, 1)
        finish(db, rollout)
        assert rollout.lost_cost_usd == 0.5
        assert not db.exec(select(RolloutEvent)).all()
        assert {row.checkpoint_files for row in db.exec(select(RolloutAttempt))} == {b""}


def test_without_a_checkpoint_it_begins_anew_and_says_so(engine: Engine) -> None:
    SqlJournal(engine, 1, "7.1").step(STEP)
    again = SqlJournal(engine, 1, "7.2")
    assert again.checkpoint is None
    assert again.past.events == ()
    assert attempts(engine)[1] == (2, AttemptWay.RESTARTED, "no checkpoint was left")
    again.restart("its files could not be put back")
    assert attempts(engine)[1] == (2, AttemptWay.RESTARTED, "its files could not be put back")


def test_a_worker_that_lost_its_rollout_is_told_to_stop(engine: Engine) -> None:
    old = SqlJournal(engine, 1, "7.1")
    SqlJournal(engine, 1, "7.2")
    order = old.step(STEP)
    assert order is not None
    assert (order.exit_status, order.detail) == (ExitStatus.CANCELLED, "another worker has taken this rollout over")


def test_a_campaign_stops_all_its_rollouts_when_its_money_is_spent(engine: Engine) -> None:
    one, two = SqlJournal(engine, 1, "7.1"), SqlJournal(engine, 2, "8.1")
    assert one.step(replace(STEP, cost_usd=1.5)) is None
    order = two.step(replace(STEP, cost_usd=0.5))
    assert order is not None
    assert (order.exit_status, order.detail) == (
        ExitStatus.CANCELLED, "the campaign c has used up the 2 dollars it was given",
    )  # fmt: skip
    assert one.order() == order


def test_a_campaign_stops_all_its_rollouts_when_its_time_is_over_and_one_is_called_off_alone(engine: Engine) -> None:
    journal = SqlJournal(engine, 1, "7.1")
    with session(engine) as db:
        campaign = db.get_one(Campaign, 1)
        assert campaign.started_at is not None
        campaign.max_duration_s = 3600.0
        db.get_one(Rollout, 2).cancel_requested_at = utc_now()
    with session(engine) as db:
        assert stop_order(db, db.get_one(Rollout, 1)) is None
        called_off = stop_order(db, db.get_one(Rollout, 2))
        assert called_off is not None
        assert called_off.detail == "it was called off"
        db.get_one(Campaign, 1).started_at = utc_now() - timedelta(hours=2)
    order = journal.order()
    assert order is not None
    assert order.detail == "the campaign c has used up the 3600 seconds it was given"
