"""Each way in which GitHub fails, at each kind of endpoint, once and twice in a row: what is mined in the end is what
is mined without faults.

The crawl and the candidate stage run in this process, as `swefactory run` runs them, job by job until none is left to
do; where one has to wait, the time of the jobs and quotas is moved on in place of waiting.
"""

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from db.engine import make_engine, session
from db.enums import JobState
from swefactory import admin
from swefactory.config import Settings
from swefactory.demo.history import DemoHistory, build_history
from swefactory.pipeline import run_job
from swefactory.wiring import make_services
from tests.catalog_rows import mined
from tests.catalogs import upgraded
from tests.faulty_github import ENDPOINTS, KINDS, Fault, FaultyGitHub, faulty_github

_TOKEN = "a-token-for-tests"
_WAITING = "SELECT id FROM job WHERE state IN ('todo', 'failed') AND stage IN ('crawl', 'candidate') ORDER BY id"
_MOST_RUNS = 20


@dataclass
class Mine:
    """The sample's first pull requests behind a faulty GitHub, and what mining them without faults leaves."""

    history: DemoHistory
    github: FaultyGitHub
    folder: Path
    empty: Path
    undisturbed: dict[str, list[str]]

    def run(self) -> tuple[dict[str, list[str]], int]:
        """Mines in a new home: what it leaves, and how many runs it took."""
        home = self.folder / "home"
        home.mkdir()
        shutil.copy(self.empty, home / "catalog.db")
        settings = Settings(
            home=home, database_url="", github_url=self.github.url, github_token=SecretStr(_TOKEN), github_pause_s=0
        )
        engine = make_engine(settings.catalog_url)
        with session(engine) as db:
            admin.add_repository(db, self.history.name)
        n_runs = _run(settings, engine)
        found = mined(engine)
        engine.dispose()
        shutil.rmtree(home)
        return found, n_runs

    def check(self, *faults: Fault) -> None:
        self.github.fault(*faults)
        found, _ = self.run()
        met = {fault.endpoint: self.github.fired[fault.endpoint] for fault in faults}
        assert met == {fault.endpoint: fault.times for fault in faults}, "a fault was not met: this proves nothing"
        for table, rows in self.undisturbed.items():
            assert found[table] == rows, table


def _run(settings: Settings, engine: Engine) -> int:
    """Runs until nothing is left to do; how often that had to be begun."""
    for n in range(1, _MOST_RUNS):
        services = make_services(settings, engine)  # each run is a process of its own
        done: set[int] = set()
        while todo := [job_id for job_id in _waiting(engine) if job_id not in done]:
            for job_id in todo:
                state = run_job(job_id, settings=settings, engine=engine, owner="test:1", services=services)
                if state in (JobState.TODO, JobState.FAILED):
                    done.add(job_id)  # it waits
        if not _waiting(engine):
            return n
        _let_time_pass(engine)
    raise AssertionError(f"not done after {_MOST_RUNS} runs")


def _waiting(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text(_WAITING)).scalars())


def _let_time_pass(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE job SET not_before = '2020-01-01 00:00:00.000000'"))
        connection.execute(text("UPDATE api_quota SET not_before = NULL, resets_at = NULL"))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mine]:
    folder = tmp_path_factory.mktemp("faults")
    whole = build_history(folder / "history")
    history = replace(whole, pull_requests=whole.pull_requests[:3])
    upgraded(f"sqlite:///{folder / 'empty.db'}").dispose()
    with faulty_github(history, token=_TOKEN) as github:
        made = Mine(history, github, folder, folder / "empty.db", {})
        made.undisturbed, n_runs = made.run()
        assert n_runs == 1
        assert github.asked["page"] == 2, "more than one page, or a fault on the second proves nothing"
        assert all(github.asked[endpoint] for endpoint in ENDPOINTS)
        yield made


def test_without_faults_there_is_something_to_compare(mine: Mine) -> None:
    assert len(mine.undisturbed["pull_request"]) == 3
    assert len(mine.undisturbed["task_instance"]) == 2
    assert len(mine.undisturbed["pull_request_issue"]) == 3
    assert {row.count("JobState.REJECTED") for row in mine.undisturbed["job"]} == {0, 1}


def _everywhere(kind: str, times: int, *, but: Collection[str] = ()) -> list[Fault]:
    return [Fault(kind, endpoint, times) for endpoint in ENDPOINTS if endpoint not in but]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_once_at_each_endpoint_changes_nothing_of_what_is_mined(mine: Mine, kind: str) -> None:
    mine.check(*_everywhere(kind, 1))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "slow"])  # after which nothing is asked again
def test_nor_does_one_that_comes_twice_in_a_row(mine: Mine, kind: str) -> None:
    """Where it is not the repository's own address that says twice that there is none."""
    absent = {"404": ("facts", "refs"), "401": ("refs",)}
    mine.check(*_everywhere(kind, 2, but=absent.get(kind, ())))


@pytest.mark.parametrize("kind", KINDS)
def test_nor_does_one_in_the_middle(mine: Mine, kind: str) -> None:
    """On the second page, at its issues, in the pack of the first clone."""
    mine.check(*(Fault(kind, endpoint, after=1) for endpoint in ("page", "issues", "pack")))


@pytest.mark.parametrize(("kind", "endpoint"), [("404", "facts"), ("404", "refs"), ("401", "refs")])
def test_what_a_repositorys_own_address_says_twice_is_a_verdict(mine: Mine, kind: str, endpoint: str) -> None:
    mine.github.fault(Fault(kind, endpoint, times=2))
    found, _ = mine.run()
    assert any("REPOSITORY_NOT_FOUND" in row for row in found["job"])
