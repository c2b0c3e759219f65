"""What chaos must not bring about, done on purpose: each is seen, and nothing else is."""

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from db import jobs
from db.engine import session
from swefactory.pipeline import owner_name
from tests.catalogs import BOTH, add_jobs, catalog_url, let_time_pass, upgraded
from tests.chaos import witness

_HELD_BY_ANOTHER = "state = 'doing', fence = fence + 1, attempt = attempt + 1, lease_owner = 'elsewhere:1'"
_MISDEEDS = {
    "only the holder of a job renews, ends or gives it back": (
        f"UPDATE job SET {_HELD_BY_ANOTHER}",
        "UPDATE job SET state = 'succeeded'",  # as by a zombie, when nobody looks at its fence
    ),
    "only the holder": (
        f"UPDATE job SET {_HELD_BY_ANOTHER}, lease_until = '2001-01-01 00:00:00.000000'",
        "UPDATE job SET lease_until = '2031-01-01 00:00:00.000000'",
    ),
    "what has ended stays so": ("UPDATE job SET state = 'cancelled'", "UPDATE job SET state = 'succeeded'"),
    "a verdict comes from the work": ("UPDATE job SET state = 'succeeded'",),
    "fences only grow": ("UPDATE job SET fence = fence - 1",),
    "attempts stay": ("UPDATE job SET attempt = max_attempts + 1",),
    "an attempt begins": ("UPDATE job SET attempt = 1",),
    "no job is lost": ("DELETE FROM job",),
}


@pytest.fixture(params=BOTH)
def witnessed(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An empty catalog whose jobs are watched."""
    with witness.named_connections():
        url = catalog_url(request.param, request)
        engine = upgraded(url)
        witness.install(url)
        yield engine
        engine.dispose()


def test_each_broken_invariant_is_seen(witnessed: Engine) -> None:
    for rule, misdeeds in _MISDEEDS.items():
        add_jobs(witnessed, 1)
        for misdeed in misdeeds:
            do(witnessed, misdeed)
        found = witness.broken(witness.seen(witnessed))
        assert any(each.startswith(rule) for each in found), (rule, found)
        do(witnessed, "DELETE FROM job")
        do(witnessed, "DELETE FROM witness")


def test_a_jobs_ordinary_life_breaks_none(witnessed: Engine) -> None:
    add_jobs(witnessed, 1)
    assert owner_name().endswith(f":{os.getpid()}")
    for end in (
        jobs.release,
        lambda *given: jobs.postpone(*given, "later", 0),
        lambda *given: jobs.fail(*given, ""),
    ):
        end(witnessed, claimed(witnessed))
        let_time_pass(witnessed, "not_before")
    claimed(witnessed)
    let_time_pass(witnessed, "lease_until")
    with session(witnessed) as db:
        jobs.succeed(db, claimed(witnessed))
    changes = witness.seen(witnessed)
    assert witness.broken(changes) == []
    assert [change.fence for change in changes if change.state == "doing"] == [1, 2, 3, 4, 5]
    assert {change.who for change in changes} == {owner_name()}


def claimed(engine: Engine) -> jobs.Claim:
    claim = jobs.claim(engine, owner_name(), lease_s=60)
    assert claim
    return claim


def do(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))
