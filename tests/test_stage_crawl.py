"""The crawl stage on a real catalog, with a source in memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from db.engine import session
from db.enums import LinkSignal, RejectReason, SourceKind, StageName
from db.models import Crawl, Issue, PullRequest, PullRequestIssue, Repository
from swefactory.checkouts import Checkouts
from swefactory.config import Settings
from swefactory.errors import Rejected, Transient
from swefactory.protocols import ApiUsage, CommentRecord, IssueLink, RepositoryRecord
from swefactory.pull_request_rows import store_pull_request
from swefactory.sources.git_history import GitHistorySource
from swefactory.stage import NextJob, Saved
from swefactory.stages import crawl
from tests.fake_sources import FakeSource, day, issue, pull_request, resolves
from tests.git_repositories import WorkRepository


class World:
    """One repository under watch and its source."""

    def __init__(self, engine: Engine, tmp_path: Path, source: FakeSource) -> None:
        self.engine = engine
        self.source = source
        self.checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
        self.settings = Settings(home=tmp_path)
        self.sources: dict[SourceKind, Any] = {SourceKind.GITHUB: source}
        with session(engine) as db:
            row = Repository(name="acme/tool")
            db.add(row)
            db.flush()
            self.repository_id = row.id or 0
        self.crawl_id = self.watch(SourceKind.GITHUB)

    def watch(self, source: SourceKind) -> int:
        """Another crawl of the repository, which `page` works on from now on."""
        with session(self.engine) as db:
            row = Crawl(repository_id=self.repository_id, source=source)
            db.add(row)
            db.flush()
            self.crawl_id = row.id or 0
        return self.crawl_id

    def change(self, **values: object) -> None:
        """Sets columns of the repository or of its crawl."""
        with session(self.engine) as db:
            rows = db.get_one(Repository, self.repository_id), db.get_one(Crawl, self.crawl_id)
            for name, value in values.items():
                [row] = [row for row in rows if name in type(row).model_fields]
                setattr(row, name, value)

    def forget(self) -> None:
        """Takes the repository out of the catalog."""
        with session(self.engine) as db:
            for table in (PullRequest, Crawl, Repository):
                for row in db.exec(select(table)):
                    db.delete(row)
                db.flush()

    def page(self) -> Saved:
        """One job of the crawl."""
        services: Any = SimpleNamespace(sources=self.sources, checkouts=self.checkouts, settings=self.settings)
        with session(self.engine) as db:
            subject = crawl.STAGE.load(db, self.crawl_id)
        try:
            output: crawl.CrawlOutput | Rejected = crawl.STAGE.work(services, subject)
        except Rejected as verdict:
            output = verdict
        with session(self.engine) as db:
            return crawl.STAGE.save(db, self.crawl_id, output)

    def crawl(self) -> list[NextJob]:
        """Jobs until there is none of the crawl's own; the candidates' ones."""
        found: list[NextJob] = []
        while True:
            jobs = self.page().next_jobs
            found += [job for job in jobs if job.stage is StageName.CANDIDATE]
            if not any(job.stage is StageName.CRAWL for job in jobs):
                return found

    def rows(self, table: type[Any]) -> list[Any]:
        with session(self.engine) as db:
            found = list(db.exec(select(table)))
            db.expunge_all()
            return found

    @property
    def progress(self) -> Crawl:
        [found] = [row for row in self.rows(Crawl) if row.id == self.crawl_id]
        return found

    @property
    def row(self) -> Repository:
        [found] = [row for row in self.rows(Repository) if row.id == self.repository_id]
        return found

    def numbers(self) -> list[int]:
        return [row.number for row in self.rows(PullRequest)]


@pytest.fixture
def make_world(catalog: Engine, tmp_path: Path) -> Callable[..., World]:
    return lambda *pull_requests, **more: World(catalog, tmp_path, FakeSource(list(pull_requests), **more))


def test_a_page_is_stored_with_its_issues_and_links(make_world: Callable[..., World]) -> None:
    comment = CommentRecord("eve", day(2), "hm", day(3))
    link = IssueLink(
        issue(3, "Broken", comments=(comment,)), frozenset({LinkSignal.KEYWORD_BODY, LinkSignal.CLOSING_REFERENCE})
    )
    world = make_world(pull_request(7, issues=(link,)))
    assert [job.again for job in world.crawl()] == [False]
    [pr], [found], [linked] = world.rows(PullRequest), world.rows(Issue), world.rows(PullRequestIssue)
    assert (pr.number, pr.base_commit, pr.opened_at, pr.files) == (7, "b" * 40, day(7), ["src/x.py", "tests/test_x.py"])
    assert (found.number, found.title) == (3, "Broken")
    assert found.comments == [
        {"author": "eve", "created_at": day(2).isoformat(), "edited_at": day(3).isoformat(), "body": "hm"}
    ]
    assert (linked.pull_request_id, linked.issue_id) == (pr.id, found.id)
    assert linked.signals == ["closing_reference", "keyword_body"]
    assert 0.9 < linked.confidence < 1


def test_the_first_page_brings_the_facts_of_the_repository(make_world: Callable[..., World]) -> None:
    world = make_world(*(pull_request(n) for n in range(1, 6)))
    world.crawl()
    assert (world.row.license, world.row.clone_url) == ("MIT", "https://example.org/acme/tool.git")
    assert world.source.n_facts_asked == 1


def test_a_renamed_repository_takes_its_present_name(make_world: Callable[..., World]) -> None:
    world = make_world(pull_request(1))
    world.change(name="acme/old-name")
    world.crawl()
    assert world.row.name == "acme/tool"


def test_a_repository_renamed_into_one_under_watch_is_rejected(make_world: Callable[..., World]) -> None:
    world = make_world(pull_request(1))
    world.change(name="acme/old-name")
    with session(world.engine) as db:
        db.add(Repository(name="acme/tool"))
    saved = world.page()
    assert saved.rejected is not None
    assert saved.rejected.reason is RejectReason.REPOSITORY_NOT_FOUND
    assert "acme/tool" in saved.rejected.detail
    assert world.numbers() == []


def test_an_unknown_repository_is_rejected(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.change(name="acme/nothing")
    saved = world.page()
    assert saved.rejected is not None
    assert saved.next_jobs == ()


def test_every_page_is_fetched_once_even_when_killed_between(make_world: Callable[..., World]) -> None:
    world = make_world(*(pull_request(n) for n in range(1, 8)))
    world.page()
    world.source.broken = Transient("limit", 5)
    with pytest.raises(Transient):
        world.page()
    world.source.broken = None
    world.crawl()
    assert world.source.asked == [None, "2", "2", "4", "6"]
    assert sorted(world.numbers()) == [1, 2, 3, 4, 5, 6, 7]


def test_the_crawl_asks_for_itself_again_while_pages_remain(make_world: Callable[..., World]) -> None:
    world = make_world(*(pull_request(n) for n in range(1, 4)))
    first, last = world.page(), world.page()
    assert first.next_jobs[-1] == NextJob(StageName.CRAWL, world.crawl_id, again=True)
    assert world.progress.position is None
    assert {job.stage for job in last.next_jobs} == {StageName.CANDIDATE}


def test_the_watermark_is_the_newest_update_seen_at_the_beginning(make_world: Callable[..., World]) -> None:
    world = make_world(*(pull_request(n) for n in range(1, 6)))
    world.page()
    assert world.progress.watermark_at is None
    world.source.pull_requests.append(pull_request(9, updated=50))
    world.crawl()
    assert world.progress.watermark_at == day(6)
    assert world.progress.crawled_at is not None
    assert [job.again for job in world.crawl()] == [False]
    assert 9 in world.numbers()
    assert world.progress.watermark_at == day(50)


def test_a_second_crawl_looks_at_what_is_new_only(make_world: Callable[..., World]) -> None:
    world = make_world(*(pull_request(n) for n in range(1, 8)))
    world.crawl()
    world.source.asked.clear()
    assert world.crawl() == []
    assert world.source.asked == [None]
    assert world.progress.watermark_at == day(8)


def test_a_comment_on_a_pull_request_is_no_change_but_a_new_text_is(make_world: Callable[..., World]) -> None:
    before = pull_request(1, issues=resolves(issue(3)))
    world = make_world(before)
    world.crawl()
    for changed, n_jobs in (
        (replace(before, updated_at=day(30)), 0),
        (replace(before, updated_at=day(31), head_commit="e" * 40), 1),
        (replace(before, updated_at=day(32), head_commit="e" * 40, issues=resolves(issue(3, body="edited"))), 1),
        (replace(before, updated_at=day(33), head_commit="e" * 40, issues=resolves(issue(4))), 1),
        (replace(before, updated_at=day(34), head_commit="e" * 40, issues=resolves(issue(4))), 0),
    ):
        world.source.pull_requests = [changed]
        assert [job.again for job in world.crawl()] == [True] * n_jobs
    assert len(world.rows(PullRequestIssue)) == 1
    assert sorted(row.number for row in world.rows(Issue)) == [3, 4]


def test_a_source_without_texts_does_not_erase_them(make_world: Callable[..., World]) -> None:
    world = make_world(pull_request(1, issues=resolves(issue(3, "Title", "Body"))))
    world.crawl()
    world.source.pull_requests = [pull_request(1, updated=9, issues=resolves(issue(3, "", "")))]
    assert world.crawl() == []
    assert world.rows(Issue)[0].body == "Body"


def test_the_limit_counts_pull_requests_with_tests_and_the_others_on_the_way_get_their_verdict(
    make_world: Callable[..., World],
) -> None:
    world = make_world(
        *(pull_request(n, files=("tests/test_x.py",) if n % 2 else ("README.md",)) for n in range(1, 10))
    )
    world.change(pull_request_limit=2)
    assert len(world.crawl()) == 3
    assert sorted(world.numbers()) == [7, 8, 9]
    assert world.progress.watermark_at == day(10)


def test_a_limit_reached_in_the_middle_of_a_page_ends_there(make_world: Callable[..., World]) -> None:
    world = make_world(*(pull_request(n) for n in range(1, 10)), page_size=5)
    world.change(pull_request_limit=3)
    world.crawl()
    assert sorted(world.numbers()) == [7, 8, 9]
    assert world.source.asked == [None]


def test_a_larger_limit_starts_over_and_finds_the_rest(make_world: Callable[..., World]) -> None:
    world = make_world(*(pull_request(n) for n in range(1, 8)))
    world.change(pull_request_limit=2)
    world.crawl()
    world.change(pull_request_limit=5, watermark_at=None)
    assert len(world.crawl()) == 3
    assert sorted(world.numbers()) == [3, 4, 5, 6, 7]


def test_a_repository_without_pull_requests_is_crawled(make_world: Callable[..., World]) -> None:
    world = make_world()
    assert world.crawl() == []
    assert world.progress.watermark_at is None
    assert world.progress.crawled_at is not None


def test_git_history_is_mined_from_a_clone(make_world: Callable[..., World], tmp_path: Path) -> None:
    work = WorkRepository(tmp_path / "work")
    work.commit("Start", {"x.py": "0\n"})
    for number in range(1, 5):
        work.commit(f"Fix (#{number})\n\nfixes #1{number}", {"x.py": f"{number}\n"})
    world = make_world()
    world.sources[SourceKind.GIT_HISTORY] = GitHistorySource(world.checkouts, page_size=3)
    world.settings = Settings(licenses="NOASSERTION")
    world.watch(SourceKind.GIT_HISTORY)
    world.change(clone_url=str(work.path))
    assert len(world.crawl()) == 4
    assert sorted(row.number for row in world.rows(Issue)) == [11, 12, 13, 14]
    assert (world.row.clone_url, world.row.default_branch) == (str(work.path), "main")
    work.commit("Fix (#5)", {"x.py": "5\n"})
    assert len(world.crawl()) == 1


def test_facts_that_a_source_does_not_know_stay(make_world: Callable[..., World]) -> None:
    world = make_world(facts=RepositoryRecord("acme/tool", "", "", "", license="MIT"))
    world.change(clone_url="/here", license="MIT", default_branch="main")
    world.crawl()
    assert (world.row.clone_url, world.row.license, world.row.default_branch) == ("/here", "MIT", "main")


def test_both_kinds_of_source_write_the_same_rows(make_world: Callable[..., World], tmp_path: Path) -> None:
    """git's word adds what GitHub does not know, and takes nothing away."""
    told = pull_request(7, issues=resolves(issue(3, "Title", "Body")))
    world = make_world(told)
    world.crawl()
    keyword = IssueLink(issue(3, "", ""), frozenset({LinkSignal.KEYWORD_COMMIT}))
    changelog = IssueLink(issue(4, "", ""), frozenset({LinkSignal.CHANGELOG}))
    from_git = replace(told, title="Merge", url="", base_commit="a" * 40, issues=(keyword, changelog))
    world.sources[SourceKind.GIT_HISTORY] = FakeSource([from_git, pull_request(8)])
    world.watch(SourceKind.GIT_HISTORY)
    work = WorkRepository(tmp_path / "work")
    work.commit("Start", {"x.py": "0\n"})
    world.change(clone_url=str(work.path))
    assert [job.again for job in world.crawl()] == [False, True]
    row, other = sorted(world.rows(PullRequest), key=lambda row: row.number)
    assert (row.title, row.base_commit, row.sources) == (told.title, told.base_commit, ["git_history", "github"])
    assert (other.number, other.sources) == (8, ["git_history"])
    signals = {link.issue_id: link.signals for link in world.rows(PullRequestIssue)}
    issues = {row.number: row for row in world.rows(Issue)}
    assert signals[issues[3].id] == ["closing_reference", "keyword_commit"]
    assert signals[issues[4].id] == ["changelog"]
    assert issues[3].body == "Body"


def test_git_comes_first_and_github_takes_over(make_world: Callable[..., World]) -> None:
    world = make_world(pull_request(7, title="By GitHub"))
    with session(world.engine) as db:
        store_pull_request(db, world.repository_id, SourceKind.GIT_HISTORY, pull_request(7, title="By git", url=""))
    assert [job.again for job in world.crawl()] == [True]
    assert world.rows(PullRequest)[0].title == "By GitHub"


def test_what_was_asked_is_counted(make_world: Callable[..., World]) -> None:
    world = make_world(*(pull_request(n) for n in range(1, 6)), usage_each=ApiUsage(2, 1, 3, 4))
    world.crawl()
    row = world.progress
    assert (row.n_examined, row.n_rest, row.n_rest_free, row.n_graphql, row.n_graphql_points) == (5, 6, 3, 9, 12)


FORK = RepositoryRecord("acme/tool", "", "", "main", is_fork=True, fork_root="first/tool", pushed_at=day(1))


def test_a_repository_that_the_filters_refuse_is_not_asked_for_its_pull_requests(
    make_world: Callable[..., World],
) -> None:
    world = make_world(pull_request(1), facts=FORK)
    saved = world.page()
    assert saved.rejected is not None
    assert saved.rejected.reason is RejectReason.REPOSITORY_IS_FORK
    assert "first/tool" in saved.rejected.detail
    assert "SWEFACTORY_FORKS" in saved.rejected.detail
    assert world.source.asked == []


def test_a_licence_that_is_not_allowed_or_not_known_is_named_and_can_be_let_in(
    make_world: Callable[..., World],
) -> None:
    for spdx, setting in (("GPL-3.0-only", "gpl-3.0-only"), ("", "NOASSERTION"), ("AGPL-3.0-only", "*")):
        world = make_world(pull_request(1), facts=replace(FORK, is_fork=False, license=spdx))
        saved = world.page()
        assert saved.rejected is not None
        assert saved.rejected.reason is RejectReason.LICENSE_NOT_ALLOWED
        assert spdx in saved.rejected.detail
        world.settings = Settings(licenses=setting)
        assert world.page().rejected is None
        world.forget()


def test_fresh_facts_of_a_search_are_enough_to_refuse(make_world: Callable[..., World]) -> None:
    world = make_world(pull_request(1))
    with session(world.engine) as db:
        crawl.store_facts(db.get_one(Repository, world.repository_id), FORK)
    assert world.page().rejected is not None
    assert world.source.n_facts_asked == 0
    world.change(facts_at=day(1))
    assert world.page().rejected is None, "they are old by now, and asked for again"


def test_numbers_of_an_archive_are_hydrated_and_leave_no_watermark(make_world: Callable[..., World]) -> None:
    world = make_world(*(pull_request(n) for n in range(1, 8)))
    world.sources[SourceKind.GH_ARCHIVE] = world.source
    world.watch(SourceKind.GH_ARCHIVE)
    world.change(numbers=[2, 3, 99])
    world.crawl()
    assert sorted(world.numbers()) == [2, 3]
    assert world.progress.watermark_at is None
    assert world.progress.crawled_at is not None


def test_changelog_entries_are_read_from_the_clone(make_world: Callable[..., World], tmp_path: Path) -> None:
    work = WorkRepository(tmp_path / "work")
    work.commit("Start", {"x.py": "0\n", "CHANGES.md": "# Changes\n"})
    merged = work.commit("Fix it (#7)", {"x.py": "1\n", "CHANGES.md": "# Changes\n- Mended (#31, #7)\n"})
    files = ("x.py", "CHANGES.md", "tests/test_x.py")
    told = pull_request(7, merge_commit=merged, files=files)
    facts = RepositoryRecord("acme/tool", str(work.path), "", "main", license="MIT")
    lost, untested = pull_request(8, files=files), pull_request(9, merge_commit=merged, files=files[:2])
    world = make_world(told, lost, untested, facts=facts, page_size=5)
    world.crawl()
    assert world.source.citations == {7: frozenset({31}), 8: frozenset()}
