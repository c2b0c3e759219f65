"""Jobs: what each call does to one, on both databases, and what happens when many processes claim and die."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db import claims, jobs
from db.engine import make_engine, session
from db.enums import ExportFormat, JobState, RejectReason, StageName
from db.models import Export
from tests.catalogs import BOTH, add_jobs, catalog_url, job_rows, let_time_pass, upgraded

CRAWL, VALIDATION = StageName.CRAWL, StageName.VALIDATION
EXPIRED = -1.0  # a lease of so many seconds is over as it begins


@pytest.fixture(params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = upgraded(catalog_url(request.param, request))
    yield made
    made.dispose()


def claimed(engine: Engine, lease_s: float = 60, **wanted: object) -> jobs.Claim:
    claim = jobs.claim(engine, "worker:1", lease_s=lease_s, **wanted)  # type: ignore[arg-type]
    assert claim is not None
    return claim


def state_of(engine: Engine, subject_id: int = 1) -> str:
    return str(job_rows(engine)[subject_id]["state"])


def succeed(engine: Engine, claim: jobs.Claim) -> None:
    with session(engine) as db:
        jobs.succeed(db, claim)


def enqueue(engine: Engine, subject_id: int = 1, **options: object) -> bool:
    with session(engine) as db:
        return jobs.enqueue(db, CRAWL, subject_id, **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------- enqueue


def test_a_job_is_queued_once_however_often_it_is_asked_for(engine: Engine) -> None:
    assert enqueue(engine)
    assert not enqueue(engine)
    assert not enqueue(engine, again=True)  # it has not ended
    assert len(job_rows(engine)) == 1


def test_a_job_of_a_transaction_that_fails_was_never_queued(engine: Engine) -> None:
    def interrupted() -> None:
        with session(engine) as db:
            jobs.enqueue(db, CRAWL, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert job_rows(engine) == {}


def test_again_reopens_an_ended_job_and_its_fence_keeps_growing(engine: Engine) -> None:
    enqueue(engine)
    claim = claimed(engine)
    with session(engine) as db:
        jobs.reject(db, claim, RejectReason.REPOSITORY_NOT_FOUND, "no such repository")
    assert not enqueue(engine)
    assert state_of(engine) == "rejected"
    assert enqueue(engine, again=True, max_attempts=7)
    row = job_rows(engine)[1]
    assert (row["state"], row["attempt"], row["reason"], row["message"]) == ("todo", 0, None, "")
    reopened = claimed(engine)
    assert (reopened.fence, reopened.attempt, reopened.max_attempts) == (2, 1, 7)


# ---------------------------------------------------------------- claim


def test_priority_goes_first_then_age(engine: Engine) -> None:
    enqueue(engine, 1)
    enqueue(engine, 2)
    enqueue(engine, 3, priority=5)
    assert [claimed(engine).subject_id for _ in range(3)] == [3, 1, 2]
    assert jobs.claim(engine, "worker:1", lease_s=60) is None


def test_a_claim_says_what_was_claimed_and_marks_its_sandboxes(engine: Engine) -> None:
    enqueue(engine, 41)
    claim = claimed(engine)
    assert (claim.stage, claim.subject_id, claim.attempt, claim.max_attempts, claim.fence) == (CRAWL, 41, 1, 3, 1)
    assert claim.label == f"{claim.job_id}.1"
    row = job_rows(engine)[41]
    assert (row["state"], row["lease_owner"]) == ("doing", "worker:1")


def test_a_claim_can_be_bound_to_stages_or_to_one_job(engine: Engine) -> None:
    add_jobs(engine, 1, stage=VALIDATION)
    enqueue(engine, 2)
    enqueue(engine, 3)
    third = job_rows(engine)[3]["id"]
    assert claimed(engine, job_id=third).subject_id == 3
    assert jobs.claim(engine, "worker:1", lease_s=60, job_id=third) is None  # type: ignore[arg-type]
    assert claimed(engine, stages={VALIDATION}).subject_id == 1
    assert jobs.claim(engine, "worker:1", lease_s=60, stages=()) is None


def test_a_job_is_not_claimed_before_its_time(engine: Engine) -> None:
    enqueue(engine)
    assert jobs.postpone(engine, claimed(engine), "rate limit", 30) is JobState.TODO
    assert jobs.claim(engine, "worker:1", lease_s=60) is None
    let_time_pass(engine, "not_before")
    assert claimed(engine).fence == 2


def test_an_expired_lease_is_taken_over_and_its_old_holder_writes_nothing(engine: Engine) -> None:
    enqueue(engine)
    zombie = claimed(engine, EXPIRED)
    heir = claimed(engine)
    assert (heir.attempt, heir.fence) == (2, 2)

    def finish_late() -> None:
        with session(engine) as db:
            db.add(Export(format=ExportFormat.SWEBENCH, path="/zombie", n_rows=1, sha256=""))
            db.flush()
            jobs.succeed(db, zombie)

    with pytest.raises(jobs.LeaseLost, match="fence 1"):
        finish_late()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM export")).scalar_one() == 0
    assert not jobs.renew(engine, zombie, 60)
    assert jobs.fail(engine, zombie, "late") is None
    assert jobs.postpone(engine, zombie, "late", 1) is None
    assert jobs.release(engine, zombie) is None
    succeed(engine, heir)
    assert state_of(engine) == "succeeded"


def test_a_holder_that_was_slow_but_not_replaced_may_still_finish(engine: Engine) -> None:
    enqueue(engine)
    claim = claimed(engine, EXPIRED)
    succeed(engine, claim)
    assert state_of(engine) == "succeeded"


def test_a_renewed_lease_is_not_taken_over(engine: Engine) -> None:
    enqueue(engine)
    claim = claimed(engine, EXPIRED)
    assert jobs.renew(engine, claim, 60)
    assert jobs.claim(engine, "worker:2", lease_s=60) is None


def test_a_job_that_loses_its_worker_on_every_attempt_is_dead(engine: Engine) -> None:
    enqueue(engine, max_attempts=2)
    claimed(engine, EXPIRED)
    claimed(engine, EXPIRED)
    assert jobs.claim(engine, "worker:2", lease_s=60) is None
    row = job_rows(engine)[1]
    assert (row["state"], row["attempt"]) == ("dead", 2)
    assert "worker:1" in str(row["message"])


# ---------------------------------------------------------------- ends


def test_a_rejection_keeps_its_reason(engine: Engine) -> None:
    enqueue(engine)
    claim = claimed(engine)
    with session(engine) as db:
        jobs.reject(db, claim, RejectReason.DOCS_ONLY, "only .md files")
    row = job_rows(engine)[1]
    assert (row["state"], row["reason"], row["message"]) == ("rejected", "docs_only", "only .md files")
    assert row["finished_at"] is not None


def test_failures_wait_longer_each_time_and_then_the_job_is_dead(engine: Engine) -> None:
    enqueue(engine, max_attempts=3)
    waits = []
    for _ in range(2):
        assert jobs.fail(engine, claimed(engine), "disk full", base_delay_s=100) is JobState.FAILED
        assert jobs.claim(engine, "worker:1", lease_s=60) is None
        waits.append(jobs.next_due_s(engine) or 0)
        let_time_pass(engine, "not_before")
    assert 45 < waits[0] < 150
    assert 95 < waits[1] < 300
    assert jobs.fail(engine, claimed(engine), "disk full") is JobState.DEAD
    assert jobs.unfinished(engine) == 0
    row = job_rows(engine)[1]
    assert (row["state"], row["attempt"], row["message"]) == ("dead", 3, "disk full")


def test_a_later_success_clears_the_message_of_an_earlier_failure(engine: Engine) -> None:
    enqueue(engine)
    jobs.fail(engine, claimed(engine), "disk full", base_delay_s=0)
    succeed(engine, claimed(engine))
    assert job_rows(engine)[1]["message"] == ""


def test_what_is_postponed_or_released_spends_no_attempt(engine: Engine) -> None:
    enqueue(engine, max_attempts=1)
    for _ in range(5):
        assert jobs.postpone(engine, claimed(engine), "rate limit", 0) is JobState.TODO
        assert jobs.release(engine, claimed(engine)) is JobState.TODO
    assert claimed(engine).attempt == 1
    assert claimed_fence(engine) == 11


def claimed_fence(engine: Engine) -> object:
    return job_rows(engine)[1]["fence"]


def test_a_cancelled_job_ends_under_its_holder(engine: Engine) -> None:
    enqueue(engine, 1)
    enqueue(engine, 2)
    claim = claimed(engine)
    succeeded = claimed(engine)
    succeed(engine, succeeded)
    assert jobs.cancel(engine, [claim.job_id, succeeded.job_id]) == 1
    assert (state_of(engine, 1), state_of(engine, 2)) == ("cancelled", "succeeded")
    with pytest.raises(jobs.LeaseLost):
        succeed(engine, claim)


def test_retry_reopens_dead_jobs_and_others_only_by_name(engine: Engine) -> None:
    for subject_id in (1, 2, 3):
        enqueue(engine, subject_id, max_attempts=1)
    dead, cancelled, done = (claimed(engine) for _ in range(3))
    jobs.fail(engine, dead, "broken")
    jobs.cancel(engine, [cancelled.job_id])
    succeed(engine, done)
    assert jobs.retry(engine) == 1
    assert jobs.retry(engine, [cancelled.job_id, done.job_id]) == 1
    assert [state_of(engine, subject_id) for subject_id in (1, 2, 3)] == ["todo", "todo", "succeeded"]
    assert [job_rows(engine)[subject_id]["attempt"] for subject_id in (1, 2, 3)] == [0, 0, 1]


# ---------------------------------------------------------------- dispatch


def test_hints_are_bounded_per_stage_and_not_sent_twice(engine: Engine) -> None:
    add_jobs(engine, 1, 2, 3)
    add_jobs(engine, 4, 5, stage=VALIDATION)
    first = jobs.dispatchable(engine, {CRAWL: 2, VALIDATION: 9})
    assert [stage for _, stage in first] == [CRAWL, CRAWL, VALIDATION, VALIDATION]
    assert jobs.dispatchable(engine, {CRAWL: 2, VALIDATION: 9}) == []
    claimed(engine, job_id=first[0][0])  # a hint was answered: there is room for another
    assert len(jobs.dispatchable(engine, {CRAWL: 2})) == 1


def test_a_lost_hint_an_expired_lease_and_a_due_failure_are_hinted_at_again(engine: Engine) -> None:
    add_jobs(engine, 1, 2, 3, 4)
    claimed(engine, EXPIRED)
    jobs.fail(engine, claimed(engine), "disk full", base_delay_s=0)
    claimed(engine)  # at work: nobody's business
    assert len(jobs.dispatchable(engine, {CRAWL: 9}, hint_s=EXPIRED)) == 3
    assert len(jobs.dispatchable(engine, {CRAWL: 9})) == 3
    assert jobs.dispatchable(engine, {CRAWL: 9}) == []


def test_what_is_not_due_is_not_hinted_at(engine: Engine) -> None:
    enqueue(engine)
    jobs.postpone(engine, claimed(engine), "rate limit", 60)
    assert jobs.dispatchable(engine, {CRAWL: 9}) == []


def test_a_hint_that_could_not_be_sent_is_withdrawn(engine: Engine) -> None:
    add_jobs(engine, 1, 2)
    hinted = [job_id for job_id, _ in jobs.dispatchable(engine, {CRAWL: 9})]
    claimed(engine, job_id=hinted[0])
    assert jobs.withdraw(engine, hinted) == 1  # the other one is being done
    assert jobs.withdraw(engine, []) == 0
    assert [job_id for job_id, _ in jobs.dispatchable(engine, {CRAWL: 9})] == hinted[1:]


def test_a_last_lease_that_expires_right_after_the_burials_is_for_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement of a transaction has a clock of its own."""
    enqueue(engine, max_attempts=1)
    claimed(engine, EXPIRED)
    with monkeypatch.context() as patch:
        patch.setattr(claims, "bury", lambda dialect: text("SELECT 1"))
        assert jobs.dispatchable(engine, {CRAWL: 9}) == []
        assert jobs.claim(engine, "w2", lease_s=60) is None
    assert state_of(engine) == "doing"
    assert jobs.claim(engine, "w2", lease_s=60) is None
    assert state_of(engine) == "dead"


def test_a_worker_lost_on_the_last_attempt_is_not_hinted_at(engine: Engine) -> None:
    enqueue(engine, max_attempts=1)
    claimed(engine, EXPIRED)
    assert jobs.dispatchable(engine, {CRAWL: 9}) == []
    assert state_of(engine) == "dead"


# ---------------------------------------------------------------- questions


def test_counts_unfinished_and_when_the_next_is_due(engine: Engine) -> None:
    assert jobs.next_due_s(engine) is None
    add_jobs(engine, 1, 2, 3)
    assert jobs.next_due_s(engine) == 0
    succeed(engine, claimed(engine))
    jobs.postpone(engine, claimed(engine), "rate limit", 500)
    claimed(engine, lease_s=50)
    assert jobs.counts(engine) == {
        (CRAWL, JobState.SUCCEEDED): 1, (CRAWL, JobState.TODO): 1, (CRAWL, JobState.DOING): 1,
    }  # fmt: skip
    assert jobs.unfinished(engine) == 2
    due_s = jobs.next_due_s(engine)
    assert due_s is not None
    assert 40 < due_s <= 50


def test_a_label_lives_until_its_job_ends_or_is_taken_over(engine: Engine) -> None:
    add_jobs(engine, 1, 2)
    first, second = claimed(engine), claimed(engine)
    let_time_pass(engine, "lease_until")
    with session(engine, writing=False) as db:
        assert jobs.live_labels(db) == {first.label, second.label}
    heir = claimed(engine)
    succeed(engine, second)
    with session(engine, writing=False) as db:
        assert jobs.live_labels(db) == {heir.label}


# ---------------------------------------------------------------- heartbeat


def test_a_heartbeat_keeps_a_short_lease_for_as_long_as_the_work_lasts(engine: Engine) -> None:
    enqueue(engine)
    claim = claimed(engine, lease_s=0.6)
    with jobs.Heartbeat(engine, claim, 0.6) as heartbeat:
        for _ in range(6):
            time.sleep(0.2)
            assert jobs.claim(engine, "thief:1", lease_s=60) is None
        assert not heartbeat.lost
    succeed(engine, claim)


def test_a_heartbeat_notices_that_its_job_was_cancelled(engine: Engine) -> None:
    enqueue(engine)
    claim = claimed(engine)
    with jobs.Heartbeat(engine, claim, 0.2) as heartbeat:
        jobs.cancel(engine, [claim.job_id])
        assert heartbeat.lost_event.wait(5)
        assert heartbeat.lost


def test_a_heartbeat_that_cannot_reach_the_catalog_gives_up_after_one_lease(tmp_path: Path) -> None:
    nowhere = make_engine(f"sqlite:///{tmp_path / 'gone' / 'catalog.db'}")
    claim = jobs.Claim(1, CRAWL, 1, 1, 3, 1)
    began = time.monotonic()
    with jobs.Heartbeat(nowhere, claim, 0.4) as heartbeat:
        assert heartbeat.lost_event.wait(5)
    assert time.monotonic() - began >= 0.4


# ---------------------------------------------------------------- many at once


def test_threads_that_claim_at_once_never_get_the_same_job(engine: Engine) -> None:
    add_jobs(engine, *range(40))
    taken: list[int] = []

    def work() -> None:
        while claim := jobs.claim(engine, "worker", lease_s=60):
            taken.append(claim.subject_id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(40))


def test_what_is_named_comes_before_age_but_not_before_priority(engine: Engine) -> None:
    for subject_id in (1, 2, 3):
        enqueue(engine, subject_id)
    enqueue(engine, 4, priority=5)
    named = [job_rows(engine)[3]["id"], 999]
    assert [claimed(engine, before=named).subject_id for _ in range(4)] == [4, 3, 1, 2]
