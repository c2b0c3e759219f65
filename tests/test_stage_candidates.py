"""The candidate stage on a real catalog and real repositories."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from db.engine import session
from db.enums import InstanceStatus, RejectReason, StageName
from db.models import Issue, PullRequest, PullRequestIssue, Repository, TaskInstance
from swefactory.checkouts import Checkouts, apply_patch, copy_tree
from swefactory.config import Settings
from swefactory.errors import Rejected
from swefactory.stage import NextJob, Saved
from swefactory.stages import candidates
from tests.fake_sources import day
from tests.git_repositories import WorkRepository

START = {
    "src/tool.py": "def f():\n    return 1\n",
    "tests/test_tool.py": "",
    "pyproject.toml": '[project]\nversion = "2.3.4"\n',
}
FIX: Mapping[str, str | bytes | None] = {
    "src/tool.py": "def f():\n    return 2\n",
    "tests/test_tool.py": "def test_f(): assert True\n",
    "CHANGES.md": "- fixed\n",
}


class World:
    """A repository with one pull request, number 7, that `change` makes; it resolves issue 3."""

    def __init__(self, engine: Engine, tmp_path: Path) -> None:
        self.engine = engine
        self.work = WorkRepository(tmp_path / "work")
        self.checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
        self.settings = Settings(min_statement_words=1)
        self.base = self.work.commit("Start", START)
        with session(engine) as db:
            repository = Repository(name="acme/tool", clone_url=str(self.work.path))
            db.add(repository)
            db.flush()
            self.repository_id = repository.id or 0
        self.pull_request_id = 0

    def change(self, files: Mapping[str, str | bytes | None]) -> str:
        self.work.branch("topic", self.base)
        head = self.work.commit("Fix", files)
        self.add(head_commit=head)
        return head

    def add(self, **values: Any) -> None:
        """The pull request's row, with issue 3 linked to it."""
        facts = {"base_commit": self.base, "first_commit_at": day(10), "opened_at": day(11)} | values
        times = {"merged_at": day(12), "updated_at": day(12)}
        with session(self.engine) as db:
            row = PullRequest(repository_id=self.repository_id, number=7, title="Fix", **facts, **times)
            db.add(row)
            db.flush()
            self.pull_request_id = row.id or 0
        self.link(Issue(number=3, title="It breaks", body="When I do this."))

    def link(self, issue: Issue) -> None:
        with session(self.engine) as db:
            issue.repository_id = issue.repository_id or self.repository_id
            db.add(issue)
            db.flush()
            db.add(PullRequestIssue(pull_request_id=self.pull_request_id, issue_id=issue.id or 0))

    def set(self, table: type[Any], **values: object) -> None:
        with session(self.engine) as db:
            for row in db.exec(select(table)):
                for name, value in values.items():
                    setattr(row, name, value)

    def run(self) -> Saved:
        services: Any = SimpleNamespace(checkouts=self.checkouts, settings=self.settings)
        with session(self.engine) as db:
            subject = candidates.STAGE.load(db, self.pull_request_id)
        try:
            output: candidates.Candidate | Rejected = candidates.STAGE.work(services, subject)
        except Rejected as verdict:
            output = verdict
        with session(self.engine) as db:
            return candidates.STAGE.save(db, self.pull_request_id, output)

    @property
    def instances(self) -> list[TaskInstance]:
        with session(self.engine) as db:
            found = list(db.exec(select(TaskInstance)))
            db.expunge_all()
            return found

    def made(self) -> TaskInstance:
        saved = self.run()
        assert saved.rejected is None, saved.rejected
        [instance] = self.instances
        assert [job.stage for job in saved.next_jobs] == [StageName.ENVIRONMENT]
        assert saved.next_jobs[0].subject_id == instance.id
        return instance

    def verdict(self) -> Rejected:
        saved = self.run()
        assert saved.rejected is not None
        assert saved.next_jobs == ()
        return saved.rejected


@pytest.fixture
def world(catalog: Engine, tmp_path: Path) -> World:
    return World(catalog, tmp_path)


def test_a_pull_request_with_its_issue_becomes_an_instance(world: World, tmp_path: Path) -> None:
    head = world.change(FIX)
    instance = world.made()
    assert instance.instance_id == "acme__tool-7"
    assert (instance.status, instance.version) == (InstanceStatus.CANDIDATE, "2.3")
    assert instance.base_commit == instance.environment_setup_commit == world.base
    assert instance.problem_statement == "It breaks\nWhen I do this.\n"
    assert instance.test_files == ["tests/test_tool.py"]
    assert instance.created_at == day(11)
    mirror = world.checkouts.path_of("acme/tool")
    copy_tree(world.checkouts.tree("acme/tool", mirror, world.base), tmp_path / "tree")
    apply_patch(tmp_path / "tree", instance.test_patch)
    apply_patch(tmp_path / "tree", instance.patch)
    after = world.checkouts.tree("acme/tool", mirror, head)
    files = [path.relative_to(after) for path in after.rglob("*") if path.is_file()]
    assert all((tmp_path / "tree" / name).read_bytes() == (after / name).read_bytes() for name in files)


def test_a_second_run_changes_nothing_and_an_ended_environment_job_stays_ended(world: World) -> None:
    world.change(FIX)
    first = world.run()
    world.set(TaskInstance, status=InstanceStatus.VALIDATED)
    again = world.run()
    assert [job.again for job in first.next_jobs + again.next_jobs] == [True, False]
    assert world.instances[0].status is InstanceStatus.VALIDATED


def test_a_changed_problem_starts_from_the_beginning(world: World) -> None:
    world.change(FIX)
    world.run()
    world.set(TaskInstance, status=InstanceStatus.VALIDATED, fail_to_pass=["x"], validated_at=day(20))
    world.set(Issue, body="Now explained.")
    [job] = world.run().next_jobs
    assert job == NextJob(StageName.ENVIRONMENT, world.instances[0].id or 0, again=True)
    instance = world.instances[0]
    assert (instance.status, instance.fail_to_pass, instance.validated_at) == (InstanceStatus.CANDIDATE, [], None)


def test_hints_are_the_comments_strictly_before_the_first_commit(world: World) -> None:
    world.change(FIX)
    comments = [
        {
            "author": "a",
            "created_at": day(at).isoformat(),
            "edited_at": day(edited).isoformat() if edited else None,
            "body": body,
        }
        for at, edited, body in (
            (2, None, "second"),
            (1, None, "first"),
            (10, None, "at the very time"),
            (11, None, "fixed by #7"),
            (3, 12, "edited later: the fix is in x.py"),
            (4, 5, "edited before"),
            (5, None, "  "),
        )
    ]
    world.set(Issue, comments=comments)
    assert world.made().hints_text == "first\nsecond\nedited before\n"
    world.set(PullRequest, first_commit_at=None)
    assert world.made().hints_text == ""


def test_several_issues_are_one_problem_by_number(world: World) -> None:
    world.change(FIX)
    world.link(Issue(number=2, title="Also this", body=""))
    world.link(Issue(number=9, title="", body=""))
    assert world.made().problem_statement == "Also this\n\nIt breaks\nWhen I do this.\n"


def test_no_issue_is_no_problem(world: World) -> None:
    world.change(FIX)
    with session(world.engine) as db:
        for row in db.exec(select(PullRequestIssue)):
            db.delete(row)
    assert world.verdict().reason is RejectReason.NO_LINKED_ISSUE
    assert world.instances == []


def test_an_issue_without_text_is_no_problem(world: World) -> None:
    world.change(FIX)
    world.set(Issue, title=" ", body="")
    verdict = world.verdict()
    assert verdict.reason is RejectReason.ISSUE_WITHOUT_TEXT
    assert "#3" in verdict.detail


def test_a_pull_request_that_resolves_many_issues_is_no_one_problem(world: World) -> None:
    world.change(FIX)
    with session(world.engine) as db:
        [row] = db.exec(select(PullRequest)).all()
        for number in range(100, 110):
            issue = Issue(repository_id=world.repository_id, number=number, title="One", body="of many")
            db.add(issue)
            db.flush()
            db.add(PullRequestIssue(pull_request_id=row.id or 0, issue_id=issue.id or 0))
    verdict = world.verdict()
    assert verdict.reason is RejectReason.TOO_MANY_ISSUES
    assert "11 issues" in verdict.detail


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"README.md": "new\n", "docs/conf.py": "x = 1\n"}, RejectReason.DOCS_ONLY),
        ({}, RejectReason.NO_TEST_CHANGE),
        ({"src/tool.py": "new\n"}, RejectReason.NO_TEST_CHANGE),
        ({"src/tool.py": "new\n", "tests/test_tool.py": None}, RejectReason.NO_TEST_CHANGE),
        (
            {"src/tool.py": "new\n", "tests/conftest.py": "x = 1\n", "tests/data.json": "{}"},
            RejectReason.NO_TEST_CHANGE,
        ),
        ({"tests/test_tool.py": "x = 1\n", "src/tool.py": "new\n"}, RejectReason.NO_TEST_CHANGE),
        ({"tests/test_tool.py": FIX["tests/test_tool.py"], "CHANGES.md": "x\n"}, RejectReason.NO_SOURCE_CHANGE),
        ({"checks/tool.py": FIX["tests/test_tool.py"], "CHANGES.md": "x\n"}, RejectReason.NO_SOURCE_CHANGE),
        (
            {"tests/test_tool.py": FIX["tests/test_tool.py"], "pyproject.toml": "new\n", "src/tool.pyi": "x: int\n"},
            RejectReason.NO_PYTHON_CHANGE,
        ),
    ],
)
def test_what_changes_no_code_with_its_tests_is_dropped_for_its_reason(
    world: World, files: dict[str, str | None], reason: RejectReason
) -> None:
    world.change(files)
    verdict = world.verdict()
    assert verdict.reason is reason
    assert "acme/tool#7" in verdict.detail


def test_the_diff_is_the_branchs_own_when_its_base_moved_on(world: World) -> None:
    world.work.branch("topic")
    head = world.work.commit("Fix", FIX)
    world.work.switch("main")
    moved_on = world.work.commit("Meanwhile", {"src/other.py": "x = 1\n"})
    world.add(base_commit=moved_on, head_commit=head)
    instance = world.made()
    assert instance.base_commit == moved_on
    assert "other.py" not in instance.patch


def test_a_diff_that_does_not_fit_its_base_starts_where_it_fits(world: World) -> None:
    world.work.branch("topic")
    head = world.work.commit("Fix", FIX)
    world.work.switch("main")
    conflicting = world.work.commit("Meanwhile", {"src/tool.py": "def f():\n    return 3\n"})
    world.add(base_commit=conflicting, head_commit=head)
    assert world.made().base_commit == world.base


def test_a_head_that_is_gone_leaves_the_merge_commit(world: World) -> None:
    merged = world.work.commit("Fix (#7)", FIX)
    world.add(head_commit="e" * 40, merge_commit=merged)
    instance = world.made()
    assert instance.base_commit == world.base
    assert "return 2" in instance.patch


def test_a_merged_head_that_is_the_base_itself_uses_the_merge_commit(world: World) -> None:
    merged = world.work.commit("Fix (#7)", FIX)
    world.add(base_commit=merged, head_commit=merged, merge_commit=merged)
    instance = world.made()
    assert "return 2" in instance.patch
    assert instance.base_commit == world.base


def test_commits_that_are_gone_leave_nothing_to_read(world: World) -> None:
    world.add(head_commit="e" * 40, merge_commit="d" * 40)
    assert world.verdict().reason is RejectReason.DIFF_UNREADABLE


def test_a_base_that_is_gone_leaves_what_was_merged_into(world: World) -> None:
    merged = world.work.commit("Fix (#7)", FIX)
    world.add(base_commit="b" * 40, head_commit=merged, merge_commit=merged)
    assert world.made().base_commit == world.base


def test_without_base_and_merge_the_missing_base_is_told(world: World) -> None:
    head = world.work.commit("Fix (#7)", FIX)
    world.add(base_commit="b" * 40, head_commit=head)
    verdict = world.verdict()
    assert verdict.reason is RejectReason.BASE_COMMIT_MISSING
    assert "b" * 40 in verdict.detail


def test_tests_that_only_their_content_tells_are_in_the_test_patch(world: World) -> None:
    world.change({"src/tool.py": "def f():\n    return 2\n", "checks/tool.py": "def test_f():\n    assert True\n"})
    instance = world.made()
    assert instance.test_files == ["checks/tool.py"]
    assert "checks/tool.py" in instance.test_patch
    assert "checks/tool.py" not in instance.patch


def test_binary_odd_and_moved_files_are_kept(world: World, tmp_path: Path) -> None:
    world.base = world.work.commit(
        "More", {"helper.py": "".join(f"{n}\n" for n in range(30)), "latin.py": b"# \xe9\n", "nul.py": b"a\0"}
    )
    world.work.branch("topic", world.base)
    world.work.git("mv", "helper.py", "tests/helper.py")
    odd = {"latin.py": b"# \xe8\n", "tests/data.bin": bytes(range(256)), "src/far.py": "x" * 9000 + "\0"}
    world.add(head_commit=world.work.commit("Fix", {**FIX, **odd}))
    instance = world.made()
    assert "deleted file mode" in instance.patch
    assert "tests/helper.py" in instance.test_patch
    assert instance.patch.encode()
    folder = tmp_path / "tree"
    copy_tree(world.checkouts.tree("acme/tool", world.checkouts.path_of("acme/tool"), world.base), folder)
    apply_patch(folder, instance.patch)
    apply_patch(folder, instance.test_patch)
    assert (folder / "latin.py").read_bytes() == b"# \xe8\n"
    assert (folder / "tests" / "data.bin").read_bytes() == bytes(range(256))
    assert (folder / "src" / "far.py").read_text().endswith("\0")
    assert not (folder / "helper.py").exists()


def test_a_verdict_reaches_an_instance_that_stands_already(world: World) -> None:
    world.change(FIX)
    world.made()
    world.set(Issue, title="", body="")
    world.verdict()
    [instance] = world.instances
    assert (instance.status, instance.reject_reason) == (InstanceStatus.REJECTED, RejectReason.ISSUE_WITHOUT_TEXT)
    world.set(Issue, title="It breaks", body="When I do this.")
    assert world.made().status is InstanceStatus.CANDIDATE
    assert world.instances[0].reject_reason is None


def test_a_later_stages_verdict_on_the_same_problem_stands(world: World) -> None:
    world.change(FIX)
    world.made()
    world.set(TaskInstance, status=InstanceStatus.REJECTED, reject_reason=RejectReason.NO_FAIL_TO_PASS)
    assert world.made().status is InstanceStatus.REJECTED


def test_a_repository_that_took_the_name_of_a_renamed_one_makes_no_second_instance_of_that_id(world: World) -> None:
    head = world.change(FIX)
    world.made()
    with session(world.engine) as db:
        db.get_one(Repository, world.repository_id).name = "acme/renamed"
        db.flush()
        other = Repository(name="acme/tool", clone_url=str(world.work.path))
        db.add(other)
        db.flush()
        world.repository_id = other.id or 0
    world.add(head_commit=head)
    verdict = world.verdict()
    assert verdict.reason is RejectReason.DUPLICATE
    assert "acme__tool-7" in verdict.detail
    assert world.instances[0].status is InstanceStatus.CANDIDATE


@pytest.mark.parametrize(
    ("files", "tag", "version"),
    [
        ({"pyproject.toml": '[project]\nname = "x"\nversion = "10.2.1"\n'}, "v1.0", "10.2"),
        ({"pyproject.toml": "", "setup.cfg": "[metadata]\nversion = 3.1.0\n"}, "v1.0", "3.1"),
        ({"pyproject.toml": "", "setup.py": "setup(\n    version='0.9',\n)\n"}, "v1.0", "0.9"),
        ({"pyproject.toml": "", "src/tool/__init__.py": '__version__ = "8.0.0.dev0"\n'}, "v1.0", "8.0"),
        ({"pyproject.toml": '[tool.mypy]\npython_version = "3.9"\n'}, "release-4.5.6", "4.5"),
        ({"pyproject.toml": '[project]\ndynamic = ["version"]\n'}, "nightly", ""),
    ],
)
def test_the_version_is_what_the_files_say_else_the_nearest_tag(
    world: World, files: dict[str, str], tag: str, version: str
) -> None:
    world.base = world.work.commit("More", files)
    world.work.git("tag", tag)
    world.change(FIX)
    assert world.made().version == version


def test_times_of_old_catalogs_without_edits_are_read(world: World) -> None:
    world.change(FIX)
    world.set(
        Issue, comments=[{"author": "a", "created_at": datetime(2023, 1, 1).astimezone().isoformat(), "body": "old"}]
    )
    assert world.made().hints_text == "old\n"
