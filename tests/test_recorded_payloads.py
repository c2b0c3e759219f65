"""What the real GitHub answered, recorded by others: npm's @octokit/fixtures and the recordings that PyGithub's tests
replay. Whatever is in there, as it is or turned into GraphQL's shape: nothing raises, what comes out can be stored, and
known facts come through."""

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from db.engine import session
from db.enums import SourceKind
from db.models import Issue, PullRequest, Repository
from swefactory.protocols import CommentRecord, IssueLink, RepositoryRecord
from swefactory.pull_request_rows import store_pull_request
from swefactory.sources import payloads
from swefactory.sources.payloads import FoundIssue, Json, Pull
from swefactory.stages.crawl import store_facts

_OCTOKIT = "octokit-fixture-org"
_PULL_31 = ("PyGithub/PyGithub", 31)
_RAW: tuple[Callable[[Json], object], ...] = (
    payloads.repository_record, payloads.page_of, payloads.comments_of, payloads.file_paths,
    lambda node: payloads.pull_of(node, "acme/tool"), lambda node: payloads.issue_of(node, "acme/tool"),
    lambda node: payloads.first_commit_at([node]),
)  # fmt: skip


# ---------------------------------------------------------------- reading the recordings


@cache
def octokit_bodies(folder: Path) -> tuple[Any, ...]:
    """Every answer, as it was given and as Octokit normalised it."""
    exchanges = (
        exchange
        for file in sorted(folder.rglob("*-fixture.json"))
        for exchange in json.loads(file.read_text(encoding="utf-8"))
    )
    return tuple(exchange["response"] for exchange in exchanges if isinstance(exchange["response"], dict | list))


@cache
def pygithub_bodies(folder: Path) -> tuple[Any, ...]:
    """Every JSON answer. A recorded exchange is lines: …, status, headers, body."""
    found = []
    for file in sorted(folder.rglob("ReplayData/*.txt")):
        lines = file.read_text(encoding="utf-8").split("\n")
        for status, headers, body in zip(lines, lines[1:], lines[2:], strict=False):
            if status.isdigit() and len(status) == 3 and headers[:1] in ("[", "{"):
                found += _parsed(body)
    return tuple(found)


def _parsed(body: str) -> list[Any]:
    try:
        return [json.loads(body)]
    except ValueError:  # a diff, an archive, nothing
        return []


def objects(bodies: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Every object, at any depth."""
    waiting = list(bodies)
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def repositories(bodies: tuple[Any, ...]) -> list[RepositoryRecord]:
    return [payloads.repository_record(found) for found in objects(bodies) if "full_name" in found]


def pulls(bodies: tuple[Any, ...]) -> list[tuple[str, Pull]]:
    """With their repositories' names."""
    made = ((_home(found), _graph_pull(found)) for found in objects(bodies) if "merge_commit_sha" in found)
    return [(name, pull) for name, node in made if (pull := payloads.pull_of(node, name))]


def issues(bodies: tuple[Any, ...]) -> list[FoundIssue]:
    nodes = (_graph_texts(found) for found in objects(bodies) if {"number", "title", "user"} <= found.keys())
    return [issue for node in nodes if (issue := payloads.issue_of(node, "acme/tool"))]


def comments(bodies: tuple[Any, ...]) -> tuple[CommentRecord, ...]:
    """All of them, as if of one issue."""
    nodes = [_graph_comment(found) for found in objects(bodies) if _is_comment(found)]
    return payloads.comments_of({"comments": {"nodes": nodes}})


# ---------------------------------------------------------------- REST's words in GraphQL's shape


def _graph_pull(found: dict[str, Any]) -> dict[str, Any]:
    return {
        **_graph_texts(found),
        "mergedAt": found.get("merged_at"),
        "updatedAt": found.get("updated_at"),
        "baseRefOid": (found.get("base") or {}).get("sha"),
        "headRefOid": (found.get("head") or {}).get("sha"),
        "mergeCommit": {"oid": found["merge_commit_sha"]} if found["merge_commit_sha"] else None,
    }


def _graph_texts(found: dict[str, Any]) -> dict[str, Any]:
    names = {"number": "number", "title": "title", "body": "body", "html_url": "url", "created_at": "createdAt"}
    return {**{theirs: found.get(ours) for ours, theirs in names.items()}, "author": found.get("user")}


def _is_comment(found: dict[str, Any]) -> bool:
    return {"body", "created_at", "user"} <= found.keys() and "title" not in found


def _graph_comment(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "body": found["body"],
        "createdAt": found["created_at"],
        "updatedAt": found.get("updated_at"),
        "author": found["user"],
    }


def _home(found: dict[str, Any]) -> str:
    return str(((found.get("base") or {}).get("repo") or {}).get("full_name", "acme/tool"))


# ---------------------------------------------------------------- what can be stored


def unstorable(value: object) -> Iterator[object]:
    """What one of our databases would refuse, at any depth."""
    match value:
        case str():
            if "\0" in value or value != value.encode("utf-8", "replace").decode("utf-8"):
                yield value
        case datetime():
            if value.tzinfo is None:
                yield value
        case bool() | None:
            pass
        case int():
            if not -(2**63) <= value < 2**63:
                yield value
        case dict():
            for key, each in value.items():
                yield from unstorable(key)
                yield from unstorable(each)
        case tuple() | list() | frozenset():
            for each in value:
                yield from unstorable(each)
        case _ if is_dataclass(value):
            for each_field in fields(value):
                yield from unstorable(getattr(value, each_field.name))
        case _:
            yield value


@pytest.fixture(params=["octokit", "pygithub"])
def bodies(request: pytest.FixtureRequest) -> tuple[Any, ...]:
    folder: Path = request.getfixturevalue(f"{request.param}_recordings")
    return octokit_bodies(folder) if request.param == "octokit" else pygithub_bodies(folder)


def test_whatever_object_comes_nothing_raises_and_nothing_unstorable_comes_out(bodies: tuple[Any, ...]) -> None:
    n = 0
    for found in objects(bodies):
        for parse in _RAW:
            assert not [*unstorable(parse(found))], found
        n += 1
    assert n > 200, "there is nothing in these recordings"


def test_repositories_pulls_issues_and_comments_can_be_stored(bodies: tuple[Any, ...]) -> None:
    found: list[object] = [*repositories(bodies), *pulls(bodies), *issues(bodies), *comments(bodies)]
    assert not [*unstorable(found)]
    assert found


def test_the_catalog_takes_them_all(catalog: Engine, pygithub_recordings: Path) -> None:
    bodies = pygithub_bodies(pygithub_recordings)
    facts = {record.name: record for record in repositories(bodies) if record.name}
    merged = {(name, pull.record.number): pull.record for name, pull in pulls(bodies)}
    texts = {issue.record.number: issue.record for issue in issues(bodies)}
    texts[31] = replace(texts[31], comments=comments(bodies))
    links = tuple(IssueLink(issue, frozenset()) for issue in texts.values())
    with session(catalog) as db:
        for name, record in facts.items():
            row = Repository(name=name)
            store_facts(row, record)
            db.add(row)
            db.flush()
            for (home, number), pull in merged.items():
                if home == name:
                    told = replace(pull, issues=links) if (home, number) == _PULL_31 else pull
                    store_pull_request(db, row.id or 0, SourceKind.GITHUB, told)
    with session(catalog, writing=False) as db:
        assert len(db.exec(select(PullRequest)).all()) == len(merged) > 20
        stored = {row.number: row for row in db.exec(select(Issue))}
        assert {number: row.title for number, row in stored.items()} == {n: text.title for n, text in texts.items()}
        assert len(stored[31].comments) == len(texts[31].comments) > 100


# ---------------------------------------------------------------- known facts


def test_octokits_repository_comes_through(octokit_recordings: Path) -> None:
    named = [one for one in repositories(octokit_bodies(octokit_recordings)) if one.name == f"{_OCTOKIT}/hello-world"]
    assert named[0].clone_url == f"https://github.com/{_OCTOKIT}/hello-world.git"
    assert (named[0].default_branch, named[0].license, named[0].fork_root) == ("master", "", "")


def test_a_merged_pull_request_of_pygithub_comes_through(pygithub_recordings: Path) -> None:
    found = {(name, pull.record.number): pull.record for name, pull in pulls(pygithub_bodies(pygithub_recordings))}
    pull = found[_PULL_31]
    assert (pull.title, pull.author, len(pull.merge_commit)) == ("Title edited by PyGithub", "jacquev6", 40)
    assert pull.merged_at == datetime(2012, 5, 27, 10, 29, 7, tzinfo=UTC)


def test_forks_licences_and_other_alphabets_come_through(pygithub_recordings: Path) -> None:
    found = repositories(pygithub_bodies(pygithub_recordings))
    forks = {one.fork_root for one in found if one.name == "EnricoMi/PyGithub" and one.is_fork}
    assert "PyGithub/PyGithub" in forks
    assert "LGPL-3.0" in {one.license for one in found}
    assert any("🚀" in one.description for one in found)


def test_who_has_no_author_is_taken_as_it_is(pygithub_recordings: Path) -> None:
    bodies = pygithub_bodies(pygithub_recordings)
    assert sum(found["user"] is None for found in objects(bodies) if "user" in found) > 10
    assert "" in {issue.record.author for issue in issues(bodies)}
