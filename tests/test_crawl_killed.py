"""kill -9 in the middle of a crawl, at random moments: the catalog in the end is that of a crawl nobody killed, and of
all pages only the one in flight was fetched twice."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from db.engine import make_engine
from swefactory.demo.history import DemoHistory, build_history
from tests.catalog_rows import mined
from tests.catalogs import let_time_pass
from tests.faulty_github import FaultyGitHub, faulty_github
from tests.test_bad_input import QUICK, TOKEN, Home

_N_KILLS = 4


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> DemoHistory:
    whole = build_history(tmp_path_factory.mktemp("history"))
    return replace(whole, pull_requests=whole.pull_requests[:5])


@pytest.fixture
def github(history: DemoHistory) -> Iterator[FaultyGitHub]:
    with faulty_github(history, token=TOKEN) as made:
        made.page_size, made.delay_s = 1, 0.05
        yield made


def mined_in(home: Home) -> dict[str, list[str]]:
    engine = make_engine(f"sqlite:///{home.folder / 'catalog.db'}")
    try:
        return mined(engine)
    finally:
        engine.dispose()


def test_whenever_it_is_killed_the_catalog_ends_the_same(
    tmp_path: Path, history: DemoHistory, github: FaultyGitHub
) -> None:
    whole = Home(tmp_path / "whole", github.url)
    whole.run("repo", "add", history.name)
    whole.run("run", *QUICK)
    pages = github.pages.copy()
    assert len(pages) == len(set(pages)) == len(history.pull_requests)
    github.fault()

    home = Home(tmp_path / "killed", github.url)
    home.run("repo", "add", history.name)
    in_flight = _killed_again_and_again(home, github, random.Random(1))
    home.run("run", *QUICK)
    assert mined_in(home) == mined_in(whole)
    fetched = Counter(github.pages)
    assert set(fetched) == set(pages)
    twice = {cursor: n - 1 for cursor, n in fetched.items() if n > 1}
    assert twice, "no kill met a page in flight: this run proves nothing"
    assert all(n <= in_flight[cursor] for cursor, n in twice.items()), (
        f"{twice} fetched again; last before kills were {in_flight}"
    )


def _killed_again_and_again(home: Home, github: FaultyGitHub, chance: random.Random) -> Counter[str | None]:
    """Runs, each killed after some more requests or while the first of them is answered; how often each page was
    the last one that had been asked for when a process was killed in the middle of the crawl."""
    in_flight: Counter[str | None] = Counter()
    for _ in range(_N_KILLS):
        process = home.start("run", *QUICK)
        _wait_for_requests(github, github.asked.total() + chance.randint(1, 3), process)
        time.sleep(chance.random() * 0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        if github.pages:
            in_flight[github.pages[-1]] += 1
        _end_leases(home)
    return in_flight


def _wait_for_requests(github: FaultyGitHub, n: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while github.asked.total() < n:
        assert process.poll() is None, f"it ended before it was killed: {process.communicate()}"
        assert time.monotonic() < until
        time.sleep(0.002)


def _end_leases(home: Home) -> None:
    """As if their time had passed, and enough attempts were left for so many deaths."""
    engine = make_engine(f"sqlite:///{home.folder / 'catalog.db'}")
    let_time_pass(engine, "lease_until")
    with engine.begin() as connection:
        connection.execute(text("UPDATE job SET max_attempts = 100"))
    engine.dispose()
