"""`swefactory repo discover` through GitHub's search, as a person runs it, against a GitHub on loopback."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.discovery_home import Home
from tests.fake_github import FakeGitHub, answer, serving
from tests.fake_search import repository

LIMITED = answer({"message": "API rate limit exceeded"}, 403, retry_after="1")


@pytest.fixture
def make_home(tmp_path: Path) -> Iterator[Callable[..., Home]]:
    with serving(FakeGitHub()) as github:

        def made(*repositories: dict[str, Any]) -> Home:
            github.repositories = list(repositories)
            return Home(tmp_path / "home", github)

        yield made


MIXED = (
    repository("acme/tool", stars=50),
    repository("acme/fork", stars=40, fork=True),
    repository("acme/closed", stars=30, license=None),
    repository("acme/rusty", stars=20, language="Rust"),
)


def test_what_is_found_is_queued_with_its_facts_and_what_the_filters_refuse_has_its_reason(
    make_home: Callable[..., Home],
) -> None:
    home = make_home(*MIXED)
    expected = {"acme/tool": "queued", "acme/fork": "repository_is_fork", "acme/closed": "license_not_allowed"}
    assert home.verdicts() == expected
    listed = {row["name"]: row for row in json.loads(home.run("repo", "list", "--json"))}
    assert listed.keys() == expected.keys()
    tool = listed["acme/tool"]
    assert (tool["stars"], tool["license"], tool["language"]) == (50, "MIT", "Python")


def test_refused_repositories_end_rejected_without_a_request(make_home: Callable[..., Home]) -> None:
    home = make_home(*MIXED[1:3])
    home.discover()
    n = len(home.github.requests)
    home.run("run", "--stage", "crawl")
    assert len(home.github.requests) == n
    rejected = json.loads(home.run("query", "rejected", "--json"))
    assert {row["reason"] for row in rejected} == {"repository_is_fork", "license_not_allowed"}


def test_a_dry_run_shows_the_same_and_queues_nothing(make_home: Callable[..., Home]) -> None:
    home = make_home(*MIXED)
    shown = home.discover("--dry-run")
    assert home.watched() == []
    assert home.discover() == shown
    [fork] = [row for row in shown if row["repository"] == "acme/fork"]
    assert "SWEFACTORY_FORKS=true" in fork["detail"]
    said = home.run("repo", "discover", "--dry-run")
    assert "3 repositories found: 0 would be queued, 1 under watch already, 2 refused" in said


def test_a_second_run_queues_nothing_and_lets_in_what_the_filters_let_in_now(make_home: Callable[..., Home]) -> None:
    home = make_home(*MIXED)
    home.discover()
    home.run("run", "--stage", "crawl", code=0)
    assert home.verdicts()["acme/tool"] == "known"
    assert home.verdicts(SWEFACTORY_FORKS="true")["acme/fork"] == "queued"
    assert home.verdicts(SWEFACTORY_FORKS="true")["acme/fork"] == "known", "it waits, and is queued once"


def test_a_repository_added_by_hand_in_another_case_is_the_same(make_home: Callable[..., Home]) -> None:
    home = make_home(repository("Acme/Tool"))
    home.run("repo", "add", "acme/tool", "--limit", "7")
    assert home.verdicts() == {"Acme/Tool": "known"}
    [row] = json.loads(home.run("repo", "list", "--json"))
    assert (row["name"], row["limit"]) == ("Acme/Tool", 7)


def test_the_options_are_githubs_qualifiers(make_home: Callable[..., Home]) -> None:
    home = make_home(
        repository("acme/right", "2021-03-01", 70, topics=["cli", "fast"]),
        repository("acme/few", "2021-03-01", 7, topics=["cli", "fast"]),
        repository("acme/many", "2021-03-01", 700, topics=["cli", "fast"]),
        repository("acme/old", "2019-03-01", 70, topics=["cli", "fast"]),
        repository("acme/new", "2023-03-01", 70, topics=["cli", "fast"]),
        repository("acme/slow", "2021-03-01", 70, topics=["cli"]),
        repository("acme/gpl", "2021-03-01", 70, topics=["cli", "fast"], license={"key": "gpl-3.0"}),
        repository("acme/idle", "2021-03-01", 70, topics=["cli", "fast"], pushed_at="2021-04-01T00:00:00Z"),
        repository("acme/rusty", "2021-03-01", 70, topics=["cli", "fast"], language="Rust"),
    )
    options = "--min-stars 50 --max-stars 100 --created-after 2020-01-01 --created-before 2022-01-01 --pushed-after "
    options += "2023-01-01 --topic cli --topic fast --license MIT"
    assert home.verdicts(*options.split()) == {"acme/right": "queued"}


def crowd(n: int) -> list[dict[str, Any]]:
    return [repository(f"acme/r{i}", f"20{10 + i % 10}-0{1 + i % 9}-1{i % 10}", stars=i % 7) for i in range(n)]


def test_more_than_a_thousand_are_all_found(make_home: Callable[..., Home]) -> None:
    home = make_home(*crowd(2300))
    rows = home.discover("--dry-run")
    assert len(rows) == len({row["repository"] for row in rows}) == 2300
    assert "GitHub shows" not in home.said


def test_what_github_does_not_show_is_said(make_home: Callable[..., Home]) -> None:
    home = make_home(*(repository(f"acme/r{i}", "2020-05-01", 3) for i in range(1100)))
    assert len(home.discover("--dry-run")) == 1000
    assert "created:2020-05-01..2020-05-01 stars:3..3 has 1100 repositories, of which GitHub shows 1000" in home.said


def test_a_limit_takes_those_with_most_stars(make_home: Callable[..., Home]) -> None:
    home = make_home(*(repository(f"acme/r{i}", stars=i) for i in range(1200)))
    assert list(home.verdicts("--limit", "150")) == [f"acme/r{i}" for i in range(1199, 1049, -1)]
    assert len(home.github.requests) == 2


def test_a_rate_limit_is_waited_for_and_said(make_home: Callable[..., Home]) -> None:
    home = make_home(*MIXED)
    home.github.faults = [LIMITED]
    assert "acme/tool" in home.verdicts()
    assert "waiting 1 s" in home.said


def test_a_limit_beyond_patience_ends_with_3_keeps_what_there_is_and_goes_on(make_home: Callable[..., Home]) -> None:
    home = make_home(*(repository(f"acme/r{i}", stars=i) for i in range(250)))
    limited = answer({"message": "API rate limit exceeded"}, 403, retry_after="900")
    home.github.faults = [None, limited]
    home.github.faults[0] = answer({"total_count": 250, "items": home.github.repositories[:100]})
    rows = home.discover(code=3)
    assert len(rows) == len(home.watched()) == 100
    assert "the same command again goes on from there" in home.said
    again = home.discover(code=3)
    assert again == [], "the limit holds in the next process too"
    assert "rate limit" in home.said


def test_an_outage_is_asked_again_but_not_for_ever(make_home: Callable[..., Home]) -> None:
    home = make_home(*MIXED)
    home.github.faults = [answer({}, 502)]
    home.discover("--patience", "0", code=3)
    assert "502" in home.said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--language", "klingon"], "klingon is no language"),
        (["--topic", 'a"b'], "leave out"),
        (["--min-stars", "9", "--max-stars", "8"], "nothing can match"),
        (["--created-after", "2022-01-01", "--created-before", "2021-01-01"], "nothing can match"),
        (["--created-after", "yesterday"], "yesterday"),
        (["--packages", "click", "--min-stars", "3"], "--min-stars is for GitHub's search"),
        (["--packages", "click", "--archive", __file__], "at once"),
        (["--packages", "not a name"], "not a name"),
        (["some.json.gz"], "--archive"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(make_home: Callable[..., Home], args: list[str], says: str) -> None:
    home = make_home(*MIXED)
    home.run("repo", "discover", *args, code=2)
    assert says in home.said
    assert home.watched() == []


def test_a_file_of_repositories_takes_addresses_and_names_wrong_lines(
    make_home: Callable[..., Home], tmp_path: Path
) -> None:
    home, file = make_home(), tmp_path / "repositories.txt"
    file.write_text(
        "\ufeff# mine\nacme/tool\nhttps://github.com/acme/other.git  # its address\n\ngit@github.com:acme/third.git\n"
        "http://www.github.com/acme/tool/\n"
    )
    home.run("repo", "add", "--from-file", str(file))
    assert home.watched() == ["acme/other", "acme/third", "acme/tool"]
    file.write_text("acme/fourth\nhttps://example.org/acme/tool\nacme/tool/issues\n")
    home.run("repo", "add", "--from-file", str(file), code=2)
    assert "line 2: 'https://example.org/acme/tool'; line 3: 'acme/tool/issues'" in home.said
    assert len(home.watched()) == 3
