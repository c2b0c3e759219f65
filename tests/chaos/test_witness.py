"""What chaos must not bring about, done on purpose: each is seen, and nothing else is."""

import os

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


@pytest.mark.parametrize("kind", BOTH)
def test_each_broken_invariant_is_seen(kind: str, request: pytest.FixtureRequest) -> None:
    with witness.named_connections():
        url = catalog_url(kind, request)
        engine = upgraded(url)
        witness.install(url)
        for rule, misdeeds in _MISDEEDS.items():
            add_jobs(engine, 1)
            for misdeed in misdeeds:
                do(engine, misdeed)
            found = witness.broken(witness.seen(engine))
            assert any(each.startswith(rule) for each in found), (rule, found)
            do(engine, "DELETE FROM job")
            do(engine, "DELETE FROM witness")
        engine.dispose()


@pytest.mark.parametrize("kind", BOTH)
def test_a_jobs_ordinary_life_breaks_none(kind: str, request: pytest.FixtureRequest) -> None:
    with witness.named_connections():
        url = catalog_url(kind, request)
        engine = upgraded(url)
        witness.install(url)
        add_jobs(engine, 1)
        assert owner_name().endswith(f":{os.getpid()}")
        for end in (
            jobs.release,
            lambda *given: jobs.postpone(*given, "later", 0),
            lambda *given: jobs.fail(*given, ""),
        ):
            end(engine, claimed(engine))
            let_time_pass(engine, "not_before")
        claimed(engine)
        let_time_pass(engine, "lease_until")
        with session(engine) as db:
            jobs.succeed(db, claimed(engine))
        changes = witness.seen(engine)
        assert witness.broken(changes) == []
        assert [change.fence for change in changes if change.state == "doing"] == [1, 2, 3, 4, 5]
        assert {change.who for change in changes} == {owner_name()}
        engine.dispose()


def claimed(engine: Engine) -> jobs.Claim:
    claim = jobs.claim(engine, owner_name(), lease_s=60)
    assert claim
    return claim


def do(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))
