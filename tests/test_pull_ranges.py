"""Which commits a pull request compares, in real histories of every shape."""

import os
import subprocess
from pathlib import Path

import pytest

from db.enums import RejectReason
from swefactory.checkouts import Checkouts
from swefactory.errors import Rejected
from swefactory.pull_ranges import PullCommits, PullRange, pull_range
from tests.git_repositories import WorkRepository

LINES = {n: f"line {n}\n" for n in range(30)}


def text(**changes: str) -> str:
    """A file of thirty lines; `l7="x"` changes line 7."""
    return "".join({**LINES, **{int(name[1:]): f"{value}\n" for name, value in changes.items()}}.values())


class Pull:
    """A repository with main at B and a branch `topic` from there."""

    def __init__(self, tmp_path: Path) -> None:
        self.work = WorkRepository(tmp_path / "work")
        self.checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
        self.start = self.work.commit("B", {"x.py": text(), "tests/test_x.py": text()})
        self.work.branch("topic")

    def on(self, branch: str, message: str, **lines: str) -> str:
        """A commit on `branch` that changes lines of x.py."""
        self.work.switch(branch)
        before = (self.work.path / "x.py").read_text().splitlines(keepends=True)
        for name, value in lines.items():
            before[int(name[1:])] = f"{value}\n"
        return self.work.commit(message, {"x.py": "".join(before)})

    def other(self, branch: str, message: str) -> str:
        self.work.switch(branch)
        return self.work.commit(message, {f"{message}.py": message})

    def squash(self, branch: str, message: str) -> str:
        self.work.switch("main")
        self.work.git("merge", "--squash", "--quiet", branch)
        return self.work.commit_all(message)

    def rebase(self, *commits: str) -> str:
        self.work.switch("main")
        self.work.git("cherry-pick", *commits)
        return self.work.head

    def range(self, *, base: str = "", head: str = "", merge: str = "") -> PullRange:
        mirror = self.checkouts.mirror("acme/tool", str(self.work.path), fetch=True)
        found = pull_range(self.checkouts, mirror, PullCommits("acme/tool#7", base, head, merge))
        if found.result:
            assert self._differing(found) == set()
        return found

    def _differing(self, found: PullRange) -> set[str]:
        """Touched files in which the base commit with the diff is not the result."""
        patch = self.checkouts.diff(self.checkouts.path_of("acme/tool"), found.start, found.end)
        index = {"GIT_INDEX_FILE": str(self.work.path / ".git" / "other-index")}

        def git(*args: str, given: str = "") -> str:
            env = {**os.environ, **index}
            ran = subprocess.run(
                ["git", *args], cwd=self.work.path, env=env, input=given, text=True, capture_output=True
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        git("read-tree", found.base_commit)
        git("apply", "--cached", "-", given=patch)
        tree = git("write-tree").strip()
        touched = git("diff", "--name-only", found.start, found.end).split()
        return set(git("diff", "--name-only", tree, str(found.result), "--", *touched).split()) if touched else set()


@pytest.fixture
def pull(tmp_path: Path) -> Pull:
    return Pull(tmp_path)


def test_a_merge_commit_is_compared_from_the_fork_and_based_on_the_tip_it_was_merged_into(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    tip = pull.other("main", "A")
    merge = pull.work.merge("topic", "M")
    assert pull.range(base=tip, head=head, merge=merge) == PullRange(tip, pull.start, head, merge)


def test_a_base_sha_from_before_the_merge_stays_when_only_other_files_changed_since(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    pull.other("main", "A")
    merge = pull.work.merge("topic", "M")
    assert pull.range(base=pull.start, head=head, merge=merge) == PullRange(pull.start, pull.start, head, merge)


def test_a_base_sha_from_before_others_changed_the_same_file_stays_and_the_result_is_the_heads(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    pull.on("main", "A", l25="other")
    merge = pull.work.merge("topic", "M")
    assert pull.range(base=pull.start, head=head, merge=merge) == PullRange(pull.start, pull.start, head, head)


def test_a_base_sha_between_fork_and_tip_stays_and_no_commit_tells_the_result(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    between = pull.on("main", "A", l15="other")
    pull.on("main", "C", l25="more")
    merge = pull.work.merge("topic", "M")
    assert pull.range(base=between, head=head, merge=merge) == PullRange(between, pull.start, head, None)


def test_a_squash_is_based_on_its_parent(pull: Pull) -> None:
    pull.on("topic", "1", l1="fixed")
    head = pull.on("topic", "2", l2="fixed")
    tip = pull.on("main", "A", l25="other")
    merge = pull.squash("topic", "M (#7)")
    for base in (tip, ""):
        assert pull.range(base=base, head=head, merge=merge) == PullRange(tip, pull.start, head, merge)


def test_a_rebase_is_based_below_all_of_its_commits(pull: Pull) -> None:
    first = pull.on("topic", "1", l1="fixed")
    head = pull.on("topic", "2", l2="fixed")
    tip = pull.on("main", "A", l25="other")
    merge = pull.rebase(first, head)
    for base in (tip, "", merge):
        assert pull.range(base=base, head=head, merge=merge) == PullRange(tip, pull.start, head, merge)


def test_a_fast_forward_is_based_on_the_base_sha_or_else_on_the_parent(pull: Pull) -> None:
    first = pull.on("topic", "1", l1="fixed")
    head = pull.on("topic", "2", l2="fixed")
    pull.work.switch("main")
    pull.work.git("merge", "--ff-only", "topic")
    assert pull.range(base=pull.start, head=head, merge=head) == PullRange(pull.start, pull.start, head, head)
    assert pull.range(base=head, head=head, merge=head) == PullRange(first, first, head, head)


def test_a_base_sha_recorded_after_the_merge_is_not_used(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    tip = pull.other("main", "A")
    merge = pull.work.merge("topic", "M")
    later = pull.other("main", "later")
    for base in (merge, later, head):
        assert pull.range(base=base, head=head, merge=merge) == PullRange(tip, pull.start, head, merge)


def test_what_a_branch_merged_back_from_its_base_is_not_its_change(pull: Pull) -> None:
    pull.on("topic", "1", l1="fixed")
    merged_back = pull.on("main", "A", l25="other")
    pull.work.switch("topic")
    pull.work.git("merge", "--quiet", "--no-ff", "--message", "2", "main")
    head = pull.on("topic", "3", l2="fixed")
    tip = pull.other("main", "C")
    merge = pull.work.merge("topic", "M")
    assert pull.range(base=tip, head=head, merge=merge) == PullRange(tip, merged_back, head, merge)
    stale = pull.range(base=pull.start, head=head, merge=merge)
    assert stale == PullRange(tip, merged_back, head, merge)


def test_a_squash_after_a_merge_back_is_told_too(pull: Pull) -> None:
    pull.on("topic", "1", l1="fixed")
    merged_back = pull.on("main", "A", l25="other")
    pull.work.switch("topic")
    pull.work.git("merge", "--quiet", "--no-ff", "--message", "2", "main")
    head = pull.on("topic", "3", l2="fixed")
    merge = pull.squash("topic", "M (#7)")
    assert pull.range(base=pull.start, head=head, merge=merge) == PullRange(merged_back, merged_back, head, merge)


def test_a_stacked_branch_that_was_merged_into_anothers_is_based_on_that(pull: Pull) -> None:
    below = pull.on("topic", "A", l1="theirs")
    pull.work.branch("stacked", "topic")
    head = pull.on("stacked", "1", l2="ours")
    pull.work.switch("topic")
    pull.work.git("merge", "--quiet", "--no-ff", "--message", "M", "stacked")
    merge = pull.work.head
    pull.squash("topic", "all (#6)")
    assert pull.range(base=below, head=head, merge=merge) == PullRange(below, below, head, merge)


def test_a_stacked_branch_retargeted_after_a_squash_is_what_its_own_merge_added(pull: Pull) -> None:
    below = pull.on("topic", "A", l1="theirs")
    pull.work.branch("stacked", "topic")
    head = pull.on("stacked", "1", l10="ours")
    squashed = pull.squash("topic", "A (#6)")
    pull.work.switch("main")
    pull.work.git("checkout", "stacked", "--", ".")
    merge = pull.work.commit_all("M (#7)")
    assert pull.range(base=squashed, head=head, merge=merge) == PullRange(squashed, squashed, merge, merge)
    assert pull.range(base=below, head=head, merge=merge).start in (below, squashed)


def test_a_stacked_branch_retargeted_after_a_true_merge_is_its_own_commits(pull: Pull) -> None:
    below = pull.on("topic", "A", l1="theirs")
    pull.work.branch("stacked", "topic")
    head = pull.on("stacked", "1", l10="ours")
    tip = pull.work.merge("topic", "A is merged")
    merge = pull.work.merge("stacked", "M")
    assert pull.range(base=tip, head=head, merge=merge) == PullRange(tip, below, head, merge)


def test_conflicts_solved_in_the_merge_are_part_of_the_diff(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="ours")
    tip = pull.on("main", "A", l1="theirs")
    pull.work.git("merge", "--quiet", "--no-commit", "-s", "ours", "topic")
    merge = pull.work.commit("M", {"x.py": text(l1="both")})
    assert pull.range(base=tip, head=head, merge=merge) == PullRange(tip, tip, merge, merge)
    assert pull.range(base=pull.start, head=head, merge=merge) == PullRange(tip, tip, merge, merge)


def test_a_merge_that_brings_only_a_part_is_that_part(pull: Pull) -> None:
    first = pull.on("topic", "1", l1="fixed")
    head = pull.other("topic", "rest")
    tip = pull.rebase(first)
    pull.work.git("commit", "--amend", "--message", "picked before")
    tip = pull.work.head
    merge = pull.squash("topic", "M (#7)")
    assert pull.range(base=tip, head=head, merge=merge) == PullRange(tip, tip, merge, merge)


def test_a_merge_that_brings_other_work_too_is_no_measure(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="ours")
    pull.work.switch("main")
    merge = pull.work.commit("M (#7) and more", {"x.py": text(l1="both"), "more.py": "more\n"})
    assert pull.range(base=pull.start, head=head, merge=merge) == PullRange(pull.start, pull.start, head, head)


def test_a_base_merged_into_the_branch_and_pushed_has_its_tip_as_second_parent(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    tip = pull.other("main", "A")
    pull.work.switch("topic")
    pull.work.git("merge", "--quiet", "--no-ff", "--message", "M", "main")
    merge = pull.work.head
    assert pull.range(head=head, merge=merge) == PullRange(tip, pull.start, head, merge)


def test_one_merge_of_several_branches_is_based_on_its_first_parent(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    pull.work.branch("second", pull.start)
    pull.other("second", "two")
    tip = pull.other("main", "A")
    pull.work.git("merge", "--quiet", "--message", "M", "topic", "second")
    merge = pull.work.head
    assert pull.range(head=head, merge=merge) == PullRange(tip, pull.start, head, merge)


def test_a_base_that_is_gone_leaves_the_tip(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    merge = pull.work.merge("topic", "M")
    assert pull.range(base="b" * 40, head=head, merge=merge) == PullRange(pull.start, pull.start, head, merge)


def test_a_head_that_is_gone_leaves_what_the_merge_added(pull: Pull) -> None:
    pull.on("topic", "1", l1="fixed")
    tip = pull.other("main", "A")
    merge = pull.work.merge("topic", "M")
    assert pull.range(base=tip, head="e" * 40, merge=merge) == PullRange(tip, tip, merge, merge)


def test_a_merge_that_is_unknown_leaves_the_base_sha_or_where_the_branch_began(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    fitting = pull.on("main", "A", l25="other")
    assert pull.range(base=fitting, head=head) == PullRange(fitting, pull.start, head, None)
    conflicting = pull.on("main", "C", l1="theirs")
    assert pull.range(base=conflicting, head=head) == PullRange(pull.start, pull.start, head, head)


def test_with_too_little_left_it_says_what_is_missing(pull: Pull) -> None:
    head = pull.on("topic", "1", l1="fixed")
    with pytest.raises(Rejected, match="acme/tool#7") as nothing:
        pull.range(base=pull.start)
    assert nothing.value.reason is RejectReason.DIFF_UNREADABLE
    for base in ("b" * 40, "", head):
        with pytest.raises(Rejected, match="acme/tool#7") as no_base:
            pull.range(base=base, head=head)
        assert no_base.value.reason is RejectReason.BASE_COMMIT_MISSING


def test_modes_and_a_folder_in_a_files_place_are_compared_too(pull: Pull) -> None:
    pull.work.switch("topic")
    (pull.work.path / "x.py").chmod(0o755)
    head = pull.work.commit("1", {"new": "file\n"})
    pull.work.switch("main")
    conflicting = pull.work.commit("A", {"new/inside.py": "x = 1\n"})
    assert pull.range(base=conflicting, head=head) == PullRange(pull.start, pull.start, head, head)
