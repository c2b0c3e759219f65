"""Quotas and kept answers in the catalog, on both databases and from several threads."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from db.api_answers import SqlAnswers
from db.api_quotas import SqlQuotas, quotas
from tests.catalogs import BOTH, catalog_url, upgraded


@pytest.fixture(params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = upgraded(catalog_url(request.param, request))
    yield made
    made.dispose()


def row(engine: Engine, resource: str = "core") -> dict[str, object]:
    [found] = [dict(one) for one in quotas(engine) if one["resource"] == resource]
    return found


def soon(hours: float = 0.5) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def test_the_first_request_starts_at_once_and_the_next_after_the_pause(engine: Engine) -> None:
    pace = SqlQuotas(engine, pause_s=30)
    assert pace.take("token:a", "core", 2) == 0
    assert 25 < pace.take("token:a", "core", 2) <= 30
    assert 25 < pace.take("token:a", "core", 60) <= 30, "the one that would not wait has taken no place"
    assert 55 < pace.take("token:a", "core", 60) <= 60
    assert pace.take("token:b", "core", 2) == 0
    assert pace.take("token:a", "graphql", 2) == 0


def test_nothing_starts_when_nothing_is_left(engine: Engine) -> None:
    pace = SqlQuotas(engine, pause_s=0)
    pace.note("a", "core", 1, 5000, soon())
    assert pace.take("a", "core", 2) == 0
    assert 1700 < pace.take("a", "core", 2) <= 1802
    assert row(engine)["n_left"] == 0
    assert row(engine)["n_asked"] == 1


def test_a_window_that_has_passed_counts_no_more(engine: Engine) -> None:
    pace = SqlQuotas(engine, pause_s=0)
    pace.note("a", "core", 0, 5000, soon(-0.01))
    assert pace.take("a", "core", 2) == 0


def test_answers_that_overtake_each_other_do_not_give_quota_back(engine: Engine) -> None:
    pace, at = SqlQuotas(engine, pause_s=0), soon()
    pace.note("a", "core", 10, 5000, at)
    pace.note("a", "core", 12, 5000, at)
    assert row(engine)["n_left"] == 10
    pace.note("a", "core", 5000, 5000, at + timedelta(hours=1))
    assert row(engine)["n_left"] == 5000


def test_a_secondary_limit_stops_every_resource_and_is_not_shortened(engine: Engine) -> None:
    pace = SqlQuotas(engine, pause_s=0)
    pace.block("a", 100)
    pace.block("a", 10, "graphql")
    for resource in ("core", "graphql", "search"):
        assert 90 < pace.take("a", resource, 2) <= 100
    assert pace.take("b", "core", 2) == 0


def test_no_two_threads_start_within_the_pause(engine: Engine) -> None:
    starts: list[float] = []
    lock = threading.Lock()

    def ask() -> None:
        pace = SqlQuotas(engine, pause_s=0.2)
        for _ in range(3):
            wait_s = pace.take("a", "core", 60)
            start = time.monotonic() + wait_s
            with lock:
                starts.append(start)
            time.sleep(wait_s)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(starts) == 12
    assert max(starts) - min(starts) >= 11 * 0.2 - 0.1, "twelve starts need eleven pauses, however they are spread"
    assert row(engine)["n_asked"] == 12


def test_an_answer_is_kept_for_its_credential_and_address_and_replaced(engine: Engine) -> None:
    kept = SqlAnswers(engine)
    assert kept.get("token:a", "/repos/acme/tool") is None
    kept.put("token:a", "/repos/acme/tool", '"1"', b'{"a": 1}')
    kept.put("token:a", "/repos/acme/tool", '"2"', b'{"a": 2}' * 1000)
    assert kept.get("token:a", "/repos/acme/tool") == ('"2"', b'{"a": 2}' * 1000)
    assert kept.get("token:b", "/repos/acme/tool") is None
