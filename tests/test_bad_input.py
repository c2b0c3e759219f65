"""Bad input and bad luck as a person meets them: the command line as a process, a GitHub on loopback.

One property, of every test: a sentence and not a traceback, the exit code of cli/main.py's table, and nothing lost.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from swefactory.demo.github_server import github_server
from swefactory.demo.history import DemoHistory, build_history
from tests.fake_github import Answer, FakeGitHub, answer, closes, issue_node, node, serving
from tests.git_repositories import WorkRepository

TOKEN = "a-token-for-tests"
QUICK = ("--stage", "crawl", "--stage", "candidate")


class Home:
    """A home of its own, and `swefactory` run on it."""

    def __init__(self, folder: Path, url: str, **environment: str) -> None:
        self.folder = folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SWEFACTORY_")}
        ours = {"SWEFACTORY_HOME": str(folder), "SWEFACTORY_GITHUB_URL": url, "SWEFACTORY_GITHUB_TOKEN": TOKEN}
        self.environment = {**kept, **ours, **environment}

    def run(self, *args: str, code: int = 0, **environment: str) -> str:
        """What it printed on both streams, once its exit code is the expected one and nothing is a traceback."""
        ran = subprocess.run(
            [sys.executable, "-m", "swefactory.cli.main", *args],
            env=self.environment | environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        said = ran.stdout + ran.stderr
        assert "Traceback" not in said, said
        assert ran.returncode == code, said
        return said

    def start(self, *args: str) -> subprocess.Popen[str]:
        """In a session of its own, as a shell starts a job."""
        return subprocess.Popen(
            [sys.executable, "-m", "swefactory.cli.main", *args],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "catalog.db", timeout=30)) as connection, connection:
            return connection.execute(query).fetchall()

    def jobs(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT stage, state, attempt, message FROM job ORDER BY id")

    def fates(self) -> list[tuple[Any, ...]]:
        """What the catalog holds, without ids and times: each pull request, what became of it, each candidate."""
        return self.rows(
            "SELECT p.number, j.state, j.reason, t.instance_id, t.status, t.patch, t.test_patch, t.problem_statement "
            "FROM pull_request p LEFT JOIN job j ON j.stage = 'candidate' AND j.subject_id = p.id "
            "LEFT JOIN task_instance t ON t.pull_request_id = p.id ORDER BY p.number"
        ) + self.rows("SELECT stage, state, count(*) FROM job GROUP BY stage, state ORDER BY stage, state")

    def let_time_pass(self) -> None:
        """Every waiting job is due, and GitHub may be asked."""
        self.rows("UPDATE job SET not_before = '2020-01-01 00:00:00.000000'")
        self.rows("UPDATE api_quota SET not_before = NULL, resets_at = NULL")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> DemoHistory:
    return build_history(tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def github(history: DemoHistory) -> Iterator[str]:
    with github_server(history, token=TOKEN, former_names=("lapse-dev/former",)) as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, github: str) -> Home:
    return Home(tmp_path / "home", github)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, github: str, history: DemoHistory) -> list[tuple[Any, ...]]:
    """What a run that nothing disturbs leaves."""
    home = Home(tmp_path_factory.mktemp("undisturbed") / "home", github)
    home.run("repo", "add", history.name)
    home.run("run", *QUICK)
    return home.fates()


# ---------------------------------------------------------------- names and tokens


def test_an_unknown_repository_is_rejected_by_name_and_the_others_go_on(home: Home, history: DemoHistory) -> None:
    home.run("repo", "add", "lapse-dev/misspelt", history.name)
    said = home.run("run", "--stage", "crawl")
    assert "knows no repository lapse-dev/misspelt" in said
    assert "check the name" in home.run("status")
    rejected = [row for row in json.loads(home.run("query", "rejections", "--json")) if row["stage"] == "crawl"]
    assert [(row["repository"], row["reason"]) for row in rejected] == [("lapse-dev/misspelt", "repository_not_found")]
    assert home.rows("SELECT count(*) FROM pull_request") == [(len(history.pull_requests),)]


def test_a_renamed_repository_is_crawled_under_its_present_name(home: Home, history: DemoHistory) -> None:
    home.run("repo", "add", "lapse-dev/former")
    said = home.run("run", *QUICK)
    assert f"lapse-dev/former is called {history.name} now" in said
    assert [row["name"] for row in json.loads(home.run("repo", "list", "--json"))] == [history.name]
    assert ("lapse-dev__lapse-2",) in home.rows("SELECT instance_id FROM task_instance")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_wrong_token_ends_the_run_and_a_right_one_goes_on(home: Home, history: DemoHistory, processes: str) -> None:
    home.run("repo", "add", history.name)
    said = home.run("run", "-j", processes, *QUICK, code=2, SWEFACTORY_GITHUB_TOKEN="not-the-right-one")
    assert said.count("SWEFACTORY_GITHUB_TOKEN") == 1
    assert "not-the-right-one" not in said
    [(stage, state, attempt, message)] = home.jobs()
    assert (stage, state, attempt) == ("crawl", "todo", 0)
    assert "SWEFACTORY_GITHUB_TOKEN" in message
    home.run("run", "--stage", "crawl")
    assert home.jobs()[0][:2] == ("crawl", "succeeded")


# ---------------------------------------------------------------- GitHub has a bad day


def _later(faults: list[Answer | None], tmp_path: Path, *words: str) -> None:
    """The first run meets `faults` and puts its work off with these words; the next one goes on."""
    with serving(FakeGitHub(nodes=[node(1), node(2)], faults=list(faults))) as fake:
        home = Home(tmp_path / "home", fake.url)
        home.run("repo", "add", "acme/tool")
        said = home.run("run", *QUICK, code=3)
        for word in (*words, "nothing is lost", "run again"):
            assert word in " ".join(said.split())
        assert [job[:3] for job in home.jobs()] == [("crawl", "todo", 0)]
        home.let_time_pass()
        home.run("run", *QUICK)
    assert [row[:3] for row in home.fates()[:2]] == [
        (1, "rejected", "no_linked_issue"), (2, "rejected", "no_linked_issue")
    ]  # fmt: skip


def test_a_rate_limit_ends_the_run_with_how_long_and_why(tmp_path: Path) -> None:
    limited = answer({"message": "You have exceeded a secondary rate limit"}, 403, Retry_After="900")
    _later([limited], tmp_path, "1 job waits", "rate limit is reached while crawling acme/tool", "900 s")


def test_a_rate_limit_in_the_middle_of_a_crawl_keeps_the_pages_before_it(tmp_path: Path) -> None:
    with serving(FakeGitHub(nodes=[node(n, createdAt="2024-01-01T00:00:00Z", mergedAt="2024-02-01T00:00:00Z",
                                        updatedAt="2024-03-01T00:00:00Z") for n in range(1, 31)])) as fake:  # fmt: skip
        home = Home(tmp_path / "home", fake.url)
        home.run("repo", "add", "acme/tool")
        real, limited = fake.answer, answer({"message": "rate limit"}, 403, Retry_After="900")
        fake.answer = lambda *asked: limited if len(fake.sizes) == 1 else real(*asked)  # type: ignore[method-assign]
        home.run("run", "--stage", "crawl", code=3)
        assert home.rows("SELECT count(*) FROM pull_request") == [(25,)]
        fake.answer = real  # type: ignore[method-assign]
        home.let_time_pass()
        home.run("run", "--stage", "crawl")
        assert home.rows("SELECT count(*) FROM pull_request") == [(30,)]
        assert len(fake.sizes) == 2, "a page was fetched twice"


def test_a_short_rate_limit_is_waited_for(tmp_path: Path) -> None:
    limited = answer({"message": "slow down"}, 429, Retry_After="1")
    with serving(FakeGitHub(nodes=[node(1)], faults=[limited])) as fake:
        home = Home(tmp_path / "home", fake.url)
        home.run("repo", "add", "acme/tool")
        home.run("run", *QUICK)
        assert home.fates()[0][:3] == (1, "rejected", "no_linked_issue")


HTML = {"Content-Type": "text/html"}


def test_a_bad_gateway_is_asked_again_later(tmp_path: Path) -> None:
    _later([(502, HTML, b"<html><h1>502 Bad Gateway</h1></html>")], tmp_path, "answered 502 for acme/tool")


def test_a_page_of_html_in_place_of_json_is_asked_again_later(tmp_path: Path) -> None:
    _later([(200, HTML, b"<html>we are tidying up</html>")], tmp_path, "acme/tool", "asked again later")


def test_a_line_that_drops_is_asked_again_later(tmp_path: Path) -> None:
    _later([None], tmp_path, "broke off while asked for acme/tool")


def test_a_refused_connection_puts_the_crawl_off(home: Home, history: DemoHistory) -> None:
    home.run("repo", "add", history.name)
    said = home.run("run", *QUICK, code=3, SWEFACTORY_GITHUB_URL="http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in said
    assert home.jobs()[0][:3] == ("crawl", "todo", 0)
    home.let_time_pass()
    home.run("run", "--stage", "crawl")
    assert home.jobs()[0][:2] == ("crawl", "succeeded")


# ---------------------------------------------------------------- diffs


def _merged(number: int, base: str, head: str) -> dict[str, Any]:
    files = [{"path": "tool.py"}, {"path": "tests/test_tool.py"}]
    closed = [closes(100 + number)]
    return node(
        number, baseRefOid=base, headRefOid=head, mergeCommit={"oid": head}, files=files, closingIssuesReferences=closed
    )


def test_an_unreadable_diff_is_rejected_a_binary_one_kept_and_the_others_go_on(tmp_path: Path) -> None:
    work = WorkRepository(tmp_path / "tool")
    base = work.commit("Begin", {"tool.py": "x = 1\n", "tests/test_tool.py": "def test_x(): pass\n"})
    heads = []
    contents: list[dict[str, str | bytes | None]] = [
        {}, {"tests/data.bin": bytes(range(256)) * 4}, {"big.txt": ("word " * 2000 + "\n") * 510},
    ]  # fmt: skip
    for number, more in enumerate(contents):
        work.branch(f"topic-{number}")
        files: dict[str, str | bytes | None] = {"tool.py": f"x = {number + 2}\n"}
        files["tests/test_tool.py"] = "def test_x(): assert 1\n"
        heads.append(work.commit("Change", files | more))
    pulls = [_merged(number + 1, base, head) for number, head in enumerate(heads)]
    pulls.append(_merged(4, "e" * 40, "f" * 40))
    body = "It breaks whenever the tool is given a number that is larger than ten."
    issues = {number: issue_node(number, body=f"{body} Case {number}.") for number in range(101, 105)}
    with serving(FakeGitHub(nodes=pulls, issues=issues)) as fake:
        facts = {**fake.facts(), "clone_url": work.path.as_uri()}
        fake.facts = lambda: facts  # type: ignore[method-assign]
        home = Home(tmp_path / "home", fake.url)
        home.run("repo", "add", "acme/tool")
        home.run("run", *QUICK)
    assert [row[:3] for row in home.fates()[:4]] == [
        (1, "succeeded", None), (2, "succeeded", None), (3, "rejected", "diff_unreadable"),
        (4, "rejected", "diff_unreadable"),
    ]  # fmt: skip
    messages = [job[3] for job in home.jobs() if job[1] == "rejected"]
    assert any("acme/tool#3" in message and "characters" in message for message in messages)
    assert any("acme/tool#4" in message for message in messages)
    [(test_patch,)] = home.rows("SELECT test_patch FROM task_instance WHERE instance_id = 'acme__tool-2'")
    assert "GIT binary patch" in test_patch


# ---------------------------------------------------------------- stopped in the middle


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, f"it ended before it was stopped: {process.communicate()}"
        assert time.monotonic() < until
        time.sleep(0.01)


def _in_the_middle(home: Home) -> Callable[[], bool]:
    """Some candidates have ended, and others not."""
    query = "SELECT count(*) FROM job WHERE stage = 'candidate' AND state IN ('succeeded', 'rejected')"
    return lambda: home.rows(query)[0][0] >= 2


@pytest.mark.parametrize(("processes", "to_all"), [("1", False), ("2", False), ("2", True)])
def test_ctrl_c_gives_the_work_back_and_the_next_run_ends_as_if_undisturbed(
    home: Home, history: DemoHistory, undisturbed: list[tuple[Any, ...]], processes: str, to_all: bool
) -> None:
    """A terminal sends it to every process of the group; `kill -INT` to one."""
    home.run("repo", "add", history.name)
    process = home.start("run", "-j", processes, *QUICK)
    _wait_until(_in_the_middle(home), process)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "interrupted" in err
    assert "Traceback" not in err, err
    states = [job[1] for job in home.jobs() if job[0] == "candidate"]
    assert "doing" not in states, "a job was not given back"
    assert "todo" in states, "it was not in the middle"
    assert {job[2] for job in home.jobs() if job[1] == "todo"} == {0}, "an attempt was spent"
    home.run("run", *QUICK)
    assert home.fates() == undisturbed


def test_a_killed_run_is_taken_up_when_its_lease_has_ended(
    home: Home, history: DemoHistory, undisturbed: list[tuple[Any, ...]]
) -> None:
    home.environment["SWEFACTORY_LEASE_S"] = "2"
    home.run("repo", "add", history.name)
    process = home.start("run", *QUICK)
    _wait_until(_in_the_middle(home), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert "todo" in [job[1] for job in home.jobs() if job[0] == "candidate"], "it was not in the middle"
    home.run("run", *QUICK)
    assert home.fates() == undisturbed
