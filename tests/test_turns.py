"""Turns and holds: a giant does not starve the others, a held stage begins nothing, on both databases."""

from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from db import jobs
from db.engine import session
from db.enums import StageName
from db.models import Repository
from tests.catalogs import BOTH, add_jobs, catalog_url, job_rows, upgraded

CANDIDATE, VALIDATION = StageName.CANDIDATE, StageName.VALIDATION
GIANT, SMALL, LATE = 1, 2, 3


@pytest.fixture(params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = upgraded(catalog_url(request.param, request))
    with session(made) as db:
        db.add_all(Repository(id=n, name=f"acme/{n}") for n in (GIANT, SMALL, LATE))
    yield made
    made.dispose()


def queue(db: Session, repository_id: int, n: int, **options: int) -> None:
    """`n` jobs more of the repository, as subjects 1000 * repository + 0, 1, …"""
    begun = repository_id * 1000
    for subject_id in range(begun, begun + n):
        jobs.enqueue(db, CANDIDATE, subject_id, repository_id=repository_id, **options)


def claimed(engine: Engine, n: int) -> list[int]:
    """Of which repositories the next `n` jobs are."""
    claims = [jobs.claim(engine, "worker:1", lease_s=60) for _ in range(n)]
    return [claim.repository_id or 0 for claim in claims if claim]


def test_a_small_repository_does_not_wait_for_the_giant_before_it(engine: Engine) -> None:
    with session(engine) as db:
        queue(db, GIANT, 50)
        queue(db, SMALL, 3)
    assert claimed(engine, 8) == [GIANT, SMALL, GIANT, SMALL, GIANT, SMALL, GIANT, GIANT]


def test_one_that_comes_late_stands_beside_the_first_in_line(engine: Engine) -> None:
    with session(engine) as db:
        queue(db, GIANT, 50)
    assert claimed(engine, 20) == [GIANT] * 20
    with session(engine) as db:
        queue(db, LATE, 2)
    assert claimed(engine, 4) == [GIANT, LATE, GIANT, LATE]


def test_what_a_repository_had_done_before_does_not_count_against_it(engine: Engine) -> None:
    with session(engine) as db:
        queue(db, SMALL, 30)
    claimed(engine, 30)
    with session(engine) as db:
        queue(db, GIANT, 50)
        jobs.enqueue(db, CANDIDATE, 9, repository_id=SMALL)
    assert SMALL in claimed(engine, 2)


def test_priority_goes_before_turns(engine: Engine) -> None:
    with session(engine) as db:
        queue(db, SMALL, 2)
        queue(db, GIANT, 3, priority=1)
    assert claimed(engine, 5) == [GIANT, GIANT, GIANT, SMALL, SMALL]


def test_hints_are_sent_in_turn_too(engine: Engine) -> None:
    with session(engine) as db:
        queue(db, GIANT, 50)
        queue(db, SMALL, 3)
    hinted = {job_id for job_id, _ in jobs.dispatchable(engine, {CANDIDATE: 4})}
    subjects = [subject for subject, row in job_rows(engine).items() if row["id"] in hinted]
    assert sorted(subjects) == [1000, 1001, 2000, 2001]


def test_a_held_stage_begins_nothing_by_any_way_and_the_others_go_on(engine: Engine) -> None:
    add_jobs(engine, 1, stage=VALIDATION)
    add_jobs(engine, 2, stage=CANDIDATE)
    with session(engine) as db:
        jobs.hold(db, VALIDATION, "the engine is being updated")
        jobs.hold(db, VALIDATION, "the disk is full")
    assert jobs.holds(engine) == {VALIDATION: "the disk is full"}
    assert [claim.stage for claim in _all(engine)] == [CANDIDATE]
    held_job: int = job_rows(engine)[1]["id"]  # type: ignore[assignment]
    assert jobs.claim(engine, "worker:1", lease_s=60, job_id=held_job) is None
    assert jobs.dispatchable(engine, {VALIDATION: 9}) == []
    assert jobs.next_due_s(engine, [VALIDATION]) is None
    assert jobs.unfinished(engine) == 2  # the one that was claimed, and the one that waits


def test_a_stage_that_is_let_go_does_what_had_been_queued_meanwhile(engine: Engine) -> None:
    with session(engine) as db:
        jobs.hold(db, VALIDATION, "")
    add_jobs(engine, 1, stage=VALIDATION)
    with session(engine) as db:
        assert jobs.let_go(db, VALIDATION)
        assert not jobs.let_go(db, VALIDATION)
    assert [claim.subject_id for claim in _all(engine)] == [1]


def _all(engine: Engine) -> Sequence[jobs.Claim]:
    claims = []
    while claim := jobs.claim(engine, "worker:1", lease_s=60):
        claims.append(claim)
    return claims
