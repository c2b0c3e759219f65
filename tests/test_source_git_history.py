"""Pull requests mined from commits alone."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.enums import LinkSignal
from swefactory.checkouts import Checkouts
from swefactory.errors import UsageError
from swefactory.protocols import PullRequestRecord
from swefactory.sources.git_history import GitHistorySource
from tests.git_repositories import WorkRepository

NAME = "acme/tool"


@pytest.fixture
def work(tmp_path: Path) -> WorkRepository:
    repository = WorkRepository(tmp_path / "work")
    repository.commit("Start", {"x.py": "0\n"})
    return repository


@pytest.fixture
def checkouts(tmp_path: Path) -> Checkouts:
    return Checkouts(tmp_path / "mirrors", tmp_path / "cache")


def mined(checkouts: Checkouts, work: WorkRepository, since: datetime | None = None) -> list[PullRequestRecord]:
    checkouts.mirror(NAME, str(work.path), fetch=True)
    return [
        pr for page in GitHistorySource(checkouts, page_size=2).pages(NAME, since, None) for pr in page.pull_requests
    ]


def test_a_merge_commit_is_a_pull_request(checkouts: Checkouts, work: WorkRepository) -> None:
    base = work.head
    work.branch("topic")
    work.commit("Add a test, closes #4", {"tests/test_x.py": "1\n"})
    head = work.commit("Fix it", {"x.py": "1\n"})
    merge = work.merge("topic", "Merge pull request #7 from ada/topic\n\nFix the thing (fixes #3)\n\nFixes #5")
    [pr] = mined(checkouts, work)
    assert (pr.number, pr.title) == (7, "Fix the thing (fixes #3)")
    assert (pr.base_commit, pr.head_commit, pr.merge_commit) == (base, head, merge)
    assert pr.files == ("tests/test_x.py", "x.py")
    assert pr.commit_messages[0].startswith("Add a test")
    assert pr.first_commit_at == datetime(2024, 1, 3, tzinfo=UTC)
    assert {link.issue.number: link.signals for link in pr.issues} == {
        3: {LinkSignal.KEYWORD_TITLE, LinkSignal.KEYWORD_COMMIT},
        4: {LinkSignal.KEYWORD_COMMIT},
        5: {LinkSignal.KEYWORD_COMMIT},
    }


def test_the_base_of_an_old_branch_is_where_it_began_and_its_files_are_its_own(
    checkouts: Checkouts, work: WorkRepository
) -> None:
    base = work.head
    work.branch("topic")
    fix = work.commit("Fix", {"x.py": "1\n"})
    work.switch("main")
    work.commit("Meanwhile", {"y.py": "1\n"})
    work.merge("topic", "Merge pull request #7 from ada/topic\n\nFix")
    [pr] = mined(checkouts, work)
    assert (pr.base_commit, pr.head_commit, pr.files, pr.commit_messages[0]) == (base, fix, ("x.py",), "Fix")


def test_what_was_merged_back_into_a_branch_is_not_its_own_work(checkouts: Checkouts, work: WorkRepository) -> None:
    work.branch("topic")
    work.commit("Half a fix", {"x.py": "1\n"})
    work.switch("main")
    moved_on = work.commit("Meanwhile (#5)", {"y.py": "1\n"})
    work.switch("topic")
    work.git("merge", "--quiet", "--no-ff", "--message", "Merge branch 'main' into topic", "main")
    work.commit("Whole fix", {"z.py": "1\n"})
    work.switch("main")
    work.commit("Meanwhile again", {"w.py": "1\n"})
    work.merge("topic", "Merge pull request #7 from ada/topic\n\nFix")
    newest, *_ = mined(checkouts, work)
    assert (newest.number, newest.base_commit, newest.files) == (7, moved_on, ("x.py", "z.py"))
    assert "Meanwhile (#5)" not in newest.commit_messages


def test_a_stacked_pull_request_is_part_of_the_one_that_reached_the_main_line(
    checkouts: Checkouts, work: WorkRepository
) -> None:
    work.branch("topic")
    work.commit("One", {"x.py": "1\n"})
    work.branch("on-top", "topic")
    work.commit("Two", {"y.py": "1\n"})
    work.switch("topic")
    work.git("merge", "--quiet", "--no-ff", "--message", "Merge pull request #8 from ada/on-top\n\nTwo", "on-top")
    work.merge("topic", "Merge pull request #7 from ada/topic\n\nBoth")
    [pr] = mined(checkouts, work)
    assert (pr.number, pr.files) == (7, ("x.py", "y.py"))


def test_neighbours_that_name_one_number_are_a_rebased_pull_request(checkouts: Checkouts, work: WorkRepository) -> None:
    base = work.head
    work.commit("Begin\n\nPR-URL: https://github.com/acme/tool/pull/9", {"x.py": "1\n"})
    head = work.commit("End\n\nFixes: #4\n\nPR-URL: https://github.com/acme/tool/pull/9", {"y.py": "1\n"})
    work.commit("Another (#10)", {"z.py": "1\n"})
    another, pr = mined(checkouts, work)
    assert another.number == 10
    assert (pr.number, pr.title, pr.base_commit, pr.head_commit, pr.merge_commit) == (9, "Begin", base, head, head)
    assert (pr.files, len(pr.commit_messages)) == (("x.py", "y.py"), 2)
    assert [link.issue.number for link in pr.issues] == [4]


def test_a_number_said_twice_is_the_older_commits(checkouts: Checkouts, work: WorkRepository) -> None:
    first = work.commit("Fix it (#9)", {"x.py": "1\n"})
    work.commit("Between", {"y.py": "1\n"})
    work.commit("Mend the fix (#9)", {"x.py": "2\n"})
    [pr] = mined(checkouts, work)
    assert pr.merge_commit == first


@pytest.mark.parametrize(
    ("subject", "title"),
    [
        ("Merge pull request #7 from ada/topic", "Body"),
        ("Merge pull request #7", "Body"),
        ("Merge pull request #7: Say it", "Say it"),
        ("Merge PR #7: Say it", "Say it"),
        ("Merge #7", "Body"),
        ("Merge remote-tracking branch 'origin/pr/7'", "Body"),
        ("Say it (#7)", "Say it"),
        ("Say it (GH-7)", "Say it"),
        ("Say it (#7) [skip ci]", "Say it"),
    ],
)
def test_a_merge_names_its_number_in_many_ways(
    checkouts: Checkouts, work: WorkRepository, subject: str, title: str
) -> None:
    work.branch("topic")
    work.commit("Fix", {"x.py": "1\n"})
    work.merge("topic", f"{subject}\n\nBody")
    [pr] = mined(checkouts, work)
    assert (pr.number, pr.title) == (7, title)


def test_a_branch_of_releases_is_mined_and_so_is_one_that_was_merged_back(
    checkouts: Checkouts, work: WorkRepository
) -> None:
    work.branch("2.0.x")
    work.commit("For users of two (#3)", {"x.py": "1\n"})
    work.merge("2.0.x", "Merge branch '2.0.x'")
    work.git("branch", "-D", "2.0.x")
    work.branch("1.x")
    work.commit("For users of one (#4)", {"y.py": "1\n"})
    work.branch("whim")
    work.commit("A fork's number (#5)", {"z.py": "1\n"})
    work.switch("main")
    work.merge("whim", "Merge branch 'whim'")
    found = {pr.number: pr for pr in mined(checkouts, work)}
    assert sorted(found) == [3, 4]
    assert found[3].updated_at > found[3].merged_at  # it came into the main line with the merge


def test_changelog_entries_are_evidence_and_pull_requests_are_no_issues(
    checkouts: Checkouts, work: WorkRepository
) -> None:
    work.commit("Old one (#2)", {"CHANGES.rst": "Changes\n"})
    log = "Changes\n\n- Parses. :issue:`3`, fixed with #2 and :pr:`8`\n"
    work.commit("Fix (#8)", {"CHANGES.rst": log, "newsfragments/5.bugfix.rst": "Fixed.\n", "x.py": "1\n"})
    newest, _ = mined(checkouts, work)
    assert {link.issue.number: link.signals for link in newest.issues} == {
        3: {LinkSignal.CHANGELOG},
        5: {LinkSignal.CHANGELOG},
    }


MIT = (Path(__file__).parent.parent / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("files", "spdx"),
    [
        ({"LICENSE": MIT}, "MIT"),
        (
            {
                "COPYING.txt": MIT.replace("copyright holders", "\ncopyright holders").replace(
                    "COPYRIGHT", "\nCOPYRIGHT"
                )
            },
            "MIT",
        ),
        ({"LICENSE": "All rights reserved.\n"}, ""),
        ({"LICENSE-MIT": MIT, "LICENSE-OWN": "Do as you like, on Sundays.\n"}, ""),
        ({"src/LICENSE": MIT}, ""),
    ],
)
def test_the_licence_is_read_from_its_file(
    checkouts: Checkouts, work: WorkRepository, files: dict[str, str], spdx: str
) -> None:
    work.commit("Licence", files)
    checkouts.mirror(NAME, str(work.path))
    assert GitHistorySource(checkouts).repository(NAME).license == spdx


def test_a_squash_commit_is_a_pull_request(checkouts: Checkouts, work: WorkRepository) -> None:
    base = work.head
    squash = work.commit("Fix it like #1 (#2) (#8)\n\n* Resolves #6\n", {"x.py": "1\n"})
    [pr] = mined(checkouts, work)
    assert (pr.number, pr.title, pr.body) == (8, "Fix it like #1 (#2)", "* Resolves #6")
    assert (pr.base_commit, pr.head_commit, pr.merge_commit) == (base, squash, squash)
    assert [link.issue.number for link in pr.issues] == [6]
    assert (pr.issues[0].issue.title, pr.issues[0].issue.body) == ("", "")


@pytest.mark.parametrize(
    "message", ["Fix it", "See (#8) there", "Merge branch 'topic'", "Merge pull request #9 from x/y"]
)
def test_other_commits_are_none(checkouts: Checkouts, work: WorkRepository, message: str) -> None:
    work.commit(message, {"x.py": "1\n"})
    assert mined(checkouts, work) == []


def test_pages_are_newest_first_and_go_on_at_a_cursor(checkouts: Checkouts, work: WorkRepository) -> None:
    for number in range(1, 6):
        work.commit(f"Change (#{number})", {"x.py": f"{number}\n"})
        work.commit("Between", {})
    assert [pr.number for pr in mined(checkouts, work)] == [5, 4, 3, 2, 1]
    source = GitHistorySource(checkouts, page_size=2)
    first = next(source.pages(NAME, None, None))
    work.commit("Later (#6)", {"x.py": "6\n"})
    checkouts.mirror(NAME, str(work.path), fetch=True)
    pages = list(source.pages(NAME, None, first.cursor))
    assert [pr.number for page in pages for pr in page.pull_requests] == [3, 2, 1]
    assert pages[-1].cursor is None


def test_a_watermark_leaves_out_what_is_older(checkouts: Checkouts, work: WorkRepository) -> None:
    for number in range(1, 8):
        work.commit(f"Change (#{number})", {"x.py": f"{number}\n"})
    assert [pr.number for pr in mined(checkouts, work, since=datetime(2024, 1, 8, tzinfo=UTC))] == [7, 6]


def test_a_message_in_another_encoding_is_storable_text_and_keeps_its_numbers(
    checkouts: Checkouts, work: WorkRepository
) -> None:
    work.git("config", "i18n.commitEncoding", "latin-1")
    work.git("config", "i18n.logOutputEncoding", "latin-1")
    (work.path / "message").write_bytes(b"Caf\xe9 (#3)\n\nfixes #2\n")
    work.git("add", "-A")
    work.git("commit", "--quiet", "-F", "message")
    [pr] = mined(checkouts, work)
    assert (pr.number, [link.issue.number for link in pr.issues]) == (3, [2])
    assert pr.title.encode().startswith(b"Caf")


def test_a_detached_clone_is_mined_from_where_it_stands(checkouts: Checkouts, work: WorkRepository) -> None:
    work.git("checkout", "--quiet", "--detach")
    work.commit("Change (#3)", {"x.py": "1\n"})
    assert [pr.number for pr in mined(checkouts, work)] == [3]
    assert GitHistorySource(checkouts).repository(NAME).name == NAME


def test_the_default_branch_is_the_clones(checkouts: Checkouts, work: WorkRepository) -> None:
    work.git("branch", "-m", "trunk")
    checkouts.mirror(NAME, str(work.path))
    assert GitHistorySource(checkouts).repository(NAME).default_branch == "trunk"


def test_a_repository_without_a_mirror_says_how_to_add_one(checkouts: Checkouts) -> None:
    with pytest.raises(UsageError, match="--clone"):
        GitHistorySource(checkouts).repository(NAME)
    with pytest.raises(UsageError, match="--clone"):
        next(GitHistorySource(checkouts).pages(NAME, None, None))
