"""Hour files of GH Archive: old and new events, broken lines and files, and what is queued from them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import select

from db.engine import make_engine, session
from db.models import Crawl, Repository
from swefactory.sources import gh_archive
from tests.discovery_home import Home
from tests.fake_github import FakeGitHub

type Event = dict[str, Any]


def event(repository: str, number: int, action: str = "closed", **pull_request: Any) -> Event:
    """As since October 2025; `merged` makes it one from before."""
    payload = {"action": action, "number": number, "pull_request": {"id": 1, "number": number, **pull_request}}
    return {"id": "1", "type": "PullRequestEvent", "repo": {"id": 1, "name": repository}, "payload": payload}


def written(path: Path, *events: Event | str) -> Path:
    lines = "".join(f"{one if isinstance(one, str) else json.dumps(one, separators=(',', ':'))}\n" for one in events)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return path


@pytest.mark.parametrize("name", ["hour.json.gz", "hour.json"])
def test_closed_pull_requests_are_indexed_unless_they_are_known_not_to_be_merged(tmp_path: Path, name: str) -> None:
    path = written(
        tmp_path / name,
        event("acme/tool", 1, merged=True),
        event("acme/tool", 2, merged=False),
        event("acme/tool", 3),
        event("acme/tool", 3),
        event("acme/tool", 4, action="opened"),
        event("acme/tool", 5, action="merged"),
        {**event("acme/tool", 6), "type": "PullRequestReviewEvent"},
        {"type": "PushEvent", "repo": {"name": "acme/tool"}, "payload": {"message": '"PullRequestEvent"'}},
        event("acme/other", 7),
    )
    found = gh_archive.read(path)
    assert found.numbers == {"acme/tool": {1, 3, 5}, "acme/other": {7}}
    assert (found.n_lines, found.n_broken, found.cut) == (9, 0, "")


def test_events_before_2015_name_the_repository_in_another_way(tmp_path: Path) -> None:
    old = event("", 8, merged=True) | {"repository": {"owner": "acme", "name": "tool"}}
    del old["repo"]
    assert gh_archive.read(written(tmp_path / "old.json.gz", old)).numbers == {"acme/tool": {8}}


def test_broken_lines_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    half = json.dumps(event("acme/tool", 2))[:-9]
    lines = [
        event("acme/tool", 1),
        half,
        '{"type":"PullRequestEvent",}',
        event("no name", 3),
        event("a/b", -4),
        "",
        "x",
    ]
    found = gh_archive.read(written(tmp_path / "hour.json.gz", *lines))
    assert (found.numbers, found.n_broken) == ({"acme/tool": {1}}, 5)


def test_a_file_that_was_cut_short_is_said_and_what_was_read_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "hour.json.gz", *(event("acme/tool", n, title=str(hash(n))) for n in range(1, 3000)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    found = gh_archive.read(path)
    assert 0 < len(found.numbers["acme/tool"]) < 2999
    assert "is broken after line" in found.cut


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a/b", "A/b", "c/d"]), st.integers(1, 9)), max_size=30), st.integers(1, 4))
def test_files_in_any_parts_are_one_index(pairs: list[tuple[str, int]], n_files: int) -> None:
    files = []
    for start in range(n_files):
        numbers: dict[str, set[int]] = {}
        for name, number in pairs[start::n_files]:
            numbers.setdefault(name, set()).add(number)
        frozen = {name: frozenset(found) for name, found in numbers.items()}
        files.append(gh_archive.ArchiveFile(Path("hour"), frozen, 0, 0))
    merged = gh_archive.merged(iter(files))
    assert {(name.lower(), number) for name, found in merged.items() for number in found} == {
        (name.lower(), number) for name, number in pairs
    }
    assert len({name.lower() for name in merged}) == len(merged)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", FakeGitHub(url="http://127.0.0.1:9"))


def crawls(home: Home) -> dict[str, tuple[str, list[int]]]:
    engine = make_engine(f"sqlite:///{home.folder / 'catalog.db'}")
    with session(engine) as db:
        rows = db.exec(select(Repository.name, Crawl.source, Crawl.numbers).join(Crawl)).all()
    engine.dispose()
    return {name: (source.value, numbers) for name, source, numbers in rows}


def test_an_archive_is_queued_by_number_and_adds_to_what_is_there(home: Home, tmp_path: Path) -> None:
    one = written(tmp_path / "2024-01-01-0.json.gz", event("acme/tool", 5), event("acme/tool", 3), event("acme/x", 1))
    two = written(tmp_path / "2024-01-01-1.json.gz", event("Acme/Tool", 9), "broken")
    rows = home.discover("--archive", str(one))
    assert [(row["repository"], row["pull_requests"], row["verdict"]) for row in rows] == [
        ("acme/tool", 2, "queued"),
        ("acme/x", 1, "queued"),
    ]
    assert home.verdicts("--archive", str(tmp_path / "2024-*.json.gz"), "--dry-run") == {
        "acme/tool": "queued",
        "acme/x": "known",
    }
    assert crawls(home)["acme/tool"] == ("gh_archive", [3, 5])
    home.run("repo", "discover", "--archive", str(one), str(two))
    assert "1 of 2 lines are broken" in home.said
    assert crawls(home) == {"acme/tool": ("gh_archive", [3, 5, 9]), "acme/x": ("gh_archive", [1])}


def test_a_limit_takes_the_repositories_with_most_pull_requests(home: Home, tmp_path: Path) -> None:
    path = written(tmp_path / "hour.json", event("a/a", 1), event("z/z", 1), event("z/z", 2))
    assert home.verdicts("--archive", str(path), "--limit", "1") == {"z/z": "queued"}


def test_a_file_that_is_not_there_queues_nothing(home: Home, tmp_path: Path) -> None:
    path = written(tmp_path / "hour.json", event("a/a", 1))
    for wrong in (str(tmp_path / "absent-*.gz"), str(tmp_path)):
        home.run("repo", "discover", "--archive", str(path), "--archive", wrong, code=2)
        assert wrong in home.said
    assert home.watched() == []
