"""Partial mirrors over HTTP: what they ask for, and that what they lack is never taken for what is not there."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from db.enums import RejectReason
from swefactory.checkouts import Checkouts, run_git
from swefactory.errors import InfrastructureError, Rejected, Transient
from tests.git_repositories import WorkRepository
from tests.git_server import FAULTS, GitServer, git_server

NAME = "acme/tool"
N_FILES = 12


@pytest.fixture
def work(tmp_path: Path) -> WorkRepository:
    repository = WorkRepository(tmp_path / "work")
    repository.commit("one", {f"pkg/f{i}.py": f"{i}\n" for i in range(N_FILES)} | {"CHANGES.md": "Changes\n"})
    repository.commit("two", {f"pkg/f{i}.py": f"{i}!\n" for i in range(N_FILES)} | {"CHANGES.md": "Changes\n- #1\n"})
    return repository


@pytest.fixture
def server(work: WorkRepository) -> Iterator[GitServer]:
    with git_server(work.path / ".git") as running:
        yield running


@pytest.fixture
def checkouts(tmp_path: Path) -> Checkouts:
    return Checkouts(tmp_path / "mirrors", tmp_path / "cache")


def n_blobs(mirror: Path) -> int:
    listing = run_git(mirror, "cat-file", "--batch-all-objects", "--batch-check").decode()
    return listing.count(" blob ")


def asked(server: GitServer, action: Callable[[], Any]) -> int:
    """How many requests an action took."""
    before = server.posts
    action()
    return server.posts - before


def test_a_mirror_holds_commits_and_no_contents(checkouts: Checkouts, server: GitServer, work: WorkRepository) -> None:
    mirror = checkouts.mirror(NAME, server.url)
    assert n_blobs(mirror) == 0
    assert asked(server, lambda: checkouts.paths(mirror, work.head)) == 0
    assert asked(server, lambda: checkouts.merge_base(mirror, f"{work.head}", work.git("rev-parse", "HEAD^"))) == 0


def test_whatever_needs_contents_asks_once_and_only_once(
    checkouts: Checkouts, server: GitServer, work: WorkRepository
) -> None:
    mirror = checkouts.mirror(NAME, server.url)
    old, new = work.git("rev-parse", "HEAD^"), work.head
    paths = [f"pkg/f{i}.py" for i in range(N_FILES)]

    def texts() -> None:
        assert checkouts.texts(mirror, old, [*paths, "none.py"])["pkg/f3.py"] == "3\n"

    assert [asked(server, texts) for _ in range(2)] == [1, 0]
    assert n_blobs(mirror) == N_FILES
    assert [asked(server, lambda: checkouts.diff(mirror, old, new)) for _ in range(2)] == [1, 0]
    assert [asked(server, lambda: checkouts.tree(NAME, mirror, new)) for _ in range(2)] == [0, 0]


def test_a_tree_comes_in_one_request(checkouts: Checkouts, server: GitServer, work: WorkRepository) -> None:
    mirror = checkouts.mirror(NAME, server.url)
    assert asked(server, lambda: checkouts.tree(NAME, mirror, work.head)) == 1
    assert n_blobs(mirror) == N_FILES + 1


def test_a_patch_is_tried_with_one_request(checkouts: Checkouts, server: GitServer, work: WorkRepository) -> None:
    old, new = work.git("rev-parse", "HEAD^"), work.head
    patch = work.git("diff", old, new) + "\n"
    mirror = checkouts.mirror(NAME, server.url)
    found: list[bool] = []
    assert asked(server, lambda: found.append(checkouts.applies(mirror, old, patch))) == 1
    assert asked(server, lambda: found.append(checkouts.applies(mirror, new, patch))) == 1
    assert found == [True, False]


def test_changelogs_of_many_commits_come_in_one_request_and_nothing_else_with_them(
    checkouts: Checkouts, server: GitServer, work: WorkRepository
) -> None:
    work.branch("topic")
    work.commit("three", {"changelog.d/5.bugfix.md": "Fixed.\n", "a.py": "1\n"})
    work.switch("main")
    work.commit("four", {"a b.py": "1\n"})
    merge = work.merge("topic", "five")
    first, second, fourth = (work.git("rev-parse", f"main{back}") for back in ("~3", "~2", "~1"))
    mirror = checkouts.mirror(NAME, server.url)
    found: dict[str, str] = {}
    commits = [merge, first, second, fourth, "1" * 40]
    assert asked(server, lambda: found.update(checkouts.changelog_diffs(mirror, commits))) == 1
    assert set(found) == {merge, first, second, fourth}
    assert "+- #1\n" in found[second]
    assert found[merge].startswith("diff --git a/changelog.d/5.bugfix.md b/changelog.d/5.bugfix.md\nnew file mode")
    assert (found[first], found[fourth]) == ("", "")
    assert n_blobs(mirror) == 3


def test_heads_of_a_page_come_in_one_request_and_lost_ones_stay_missing(
    checkouts: Checkouts, server: GitServer, work: WorkRepository
) -> None:
    heads = []
    for number in range(5):
        work.branch(f"topic{number}")
        heads.append(work.commit(f"head {number}", {f"new{number}.py": "1\n"}))
        work.switch("main")
    mirror = checkouts.mirror(NAME, server.url)
    for number in range(5):
        work.git("branch", "-D", f"topic{number}")
    fresh = Checkouts(mirror.parent.parent / "others", mirror.parent, "")
    other = fresh.mirror(NAME, server.url)
    assert not fresh.commits_present(other, heads)
    assert asked(server, lambda: fresh.mirror_with(NAME, server.url, heads)) <= 2
    assert fresh.commits_present(other, heads) == set(heads)
    third = Checkouts(mirror.parent.parent / "third", mirror.parent, "")
    assert third.commits_present(third.mirror_with(NAME, server.url, [*heads, "1" * 40, "2" * 40]), heads) == set(heads)


def test_asking_for_a_missing_commit_asks_nobody(checkouts: Checkouts, server: GitServer, work: WorkRepository) -> None:
    mirror = checkouts.mirror(NAME, server.url)
    before = len(server.authorisations)
    assert not checkouts.commit_exists(mirror, "1" * 40)
    assert not checkouts.commit_exists(mirror, "no such name")
    assert checkouts.commit_exists(mirror, "main")
    assert checkouts.parent(mirror, "1" * 40) is None
    assert checkouts.merge_base(mirror, "1" * 40, work.head) is None
    assert checkouts.text(mirror, "1" * 40, "x.py") is None
    assert checkouts.commits_present(mirror, ["1" * 40, work.head, "main", "--all"]) == {work.head}
    assert len(server.authorisations) == before


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_is_never_taken_for_an_answer(
    checkouts: Checkouts, server: GitServer, work: WorkRepository, fault: str
) -> None:
    old, new = work.git("rev-parse", "HEAD^"), work.head
    patch = work.git("diff", old, new) + "\n"
    mirror = checkouts.mirror(NAME, server.url)
    server.fault = fault
    actions: list[Callable[[], object]] = [
        lambda: checkouts.text(mirror, new, "pkg/f1.py"),
        lambda: checkouts.applies(mirror, old, patch),
        lambda: checkouts.diff(mirror, old, new),
        lambda: checkouts.changelog_diffs(mirror, [new]),
        lambda: checkouts.tree(NAME, mirror, new),
        lambda: checkouts.mirror(NAME, server.url, fetch=True),
        lambda: Checkouts(mirror.parent / "other", mirror.parent).mirror(NAME, server.url),
    ]
    for action in actions:
        with pytest.raises(Transient, match="acme/tool"):
            action()
    server.fault = ""
    assert checkouts.text(mirror, new, "pkg/f1.py") == "1!\n"
    assert checkouts.applies(mirror, old, patch)
    assert (checkouts.tree(NAME, mirror, new) / "pkg/f1.py").read_text() == "1!\n"


def test_contents_that_no_prefetch_named_are_not_taken_for_absent_either(
    checkouts: Checkouts, server: GitServer, work: WorkRepository
) -> None:
    old = work.head
    work.commit("odd", {'a"b.py': "1\n"})
    base = work.head
    work.commit("odder", {'a"b.py': "2\n"})
    patch = work.git("diff", base, work.head) + "\n"
    mirror = checkouts.mirror(NAME, server.url)
    server.fault = "503"
    with pytest.raises(Transient):
        checkouts.applies(mirror, base, patch)
    server.fault = ""
    assert checkouts.applies(mirror, base, patch)
    assert not checkouts.applies(mirror, old, patch)


def test_a_repository_that_is_gone_is_a_verdict(checkouts: Checkouts, server: GitServer, work: WorkRepository) -> None:
    mirror = checkouts.mirror(NAME, server.url)
    server.fault = "404"
    with pytest.raises(Rejected) as caught:
        checkouts.text(mirror, work.head, "pkg/f1.py")
    assert caught.value.reason is RejectReason.REPOSITORY_NOT_FOUND


def test_a_server_that_cannot_filter_gives_everything(work: WorkRepository, checkouts: Checkouts) -> None:
    with git_server(work.path / ".git", filters=False) as server:
        mirror = checkouts.mirror(NAME, server.url)
        assert n_blobs(mirror) == 2 * (N_FILES + 1)
        assert asked(server, lambda: checkouts.tree(NAME, mirror, work.head)) == 0


def test_a_mirror_follows_its_repository_to_another_address(
    checkouts: Checkouts, server: GitServer, work: WorkRepository
) -> None:
    mirror = checkouts.mirror(NAME, server.url)
    server.fault = "404"
    with git_server(work.path / ".git") as moved:
        again = Checkouts(mirror.parent, mirror.parent / "cache")
        assert again.mirror(NAME, moved.url) == mirror
        assert again.text(mirror, work.head, "pkg/f1.py") == "1!\n"
        assert moved.posts == 1


def test_neither_token_nor_password_is_kept_and_both_go_with_every_fetch(
    tmp_path: Path, server: GitServer, work: WorkRepository
) -> None:
    api_url = server.url.removesuffix("/acme/tool.git")
    with_token = Checkouts(tmp_path / "mirrors", tmp_path / "cache", "s3cret", api_url)
    mirror = with_token.mirror(NAME, server.url)
    with_token.text(mirror, work.head, "pkg/f1.py")
    assert set(server.authorisations) == {"Basic eC1hY2Nlc3MtdG9rZW46czNjcmV0"}
    address = server.url.replace("://", "://me:hunter2@")
    other = Checkouts(tmp_path / "others", tmp_path / "cache")
    assert other.text(other.mirror(NAME, address), work.head, "pkg/f1.py") == "1!\n"
    for folder in (tmp_path / "mirrors", tmp_path / "others"):
        files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
        assert not [text for text in files if b"s3cret" in text or b"hunter2" in text or b"eC1hY2" in text]


def test_locks_and_parts_of_killed_processes_are_in_nobodys_way(
    checkouts: Checkouts, server: GitServer, work: WorkRepository
) -> None:
    left = checkouts.path_of(NAME).with_name(".part-acme+tool.git")
    (left / "objects").mkdir(parents=True)
    mirror = checkouts.mirror(NAME, server.url)
    assert not left.exists()
    for name in ("config.lock", "packed-refs.lock", "HEAD.lock", "refs/heads/main.lock", "refs/swefactory/HEAD.lock"):
        (mirror / name).write_text("")
    new = work.commit("three", {"x.py": "1\n"})
    checkouts.mirror(NAME, server.url, fetch=True)
    assert checkouts.commit_exists(mirror, new)


_FETCHER = """
import sys
from pathlib import Path
from swefactory.checkouts import Checkouts
checkouts = Checkouts(Path(sys.argv[1]) / "mirrors", Path(sys.argv[1]) / "cache")
mirror = checkouts.mirror("acme/tool", sys.argv[2], fetch=True)
for commit in sys.argv[3:]:
    checkouts.tree("acme/tool", mirror, commit)
"""


def _fetcher(folder: Path, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _FETCHER, str(folder), *args], stderr=subprocess.PIPE)


def test_processes_killed_at_any_moment_leave_a_mirror_that_works(
    tmp_path: Path, server: GitServer, work: WorkRepository, checkouts: Checkouts
) -> None:
    commits = [work.commit(f"more {i}", {f"m{i}.py": f"{i}\n"}) for i in range(6)]
    for pause_s in (0.25, 0.35, 0.5, 0.7):
        victim = _fetcher(tmp_path, server.url, *commits)
        try:
            victim.wait(pause_s)
        except subprocess.TimeoutExpired:
            os.kill(victim.pid, signal.SIGKILL)
        victim.communicate()
    together = [_fetcher(tmp_path, server.url, *commits) for _ in range(3)]
    assert [process.communicate()[1] for process in together] == [b""] * 3
    mirror = checkouts.mirror(NAME, server.url)
    assert (checkouts.tree(NAME, mirror, commits[-1]) / "m5.py").read_text() == "5\n"
    run_git(mirror, "fsck", "--connectivity-only")


_HOLDER = "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"


def test_a_fetch_waits_for_the_git_of_a_killed_process(checkouts: Checkouts, server: GitServer) -> None:
    """The lock is git's too: it is free only when the last of them has ended."""
    mirror = checkouts.mirror(NAME, server.url)
    lock = mirror.with_suffix(".lock").open("a")
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(lock.fileno())], pass_fds=(lock.fileno(),),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    lock.close()
    assert holder.stdout is not None
    holder.stdout.readline()
    done = threading.Event()
    thread = threading.Thread(target=lambda: (checkouts.mirror(NAME, server.url, fetch=True), done.set()))
    thread.start()
    assert not done.wait(0.5)
    holder.communicate(b"")
    assert done.wait(30)
    thread.join()


def test_a_blob_the_server_lost_is_our_fault(checkouts: Checkouts, server: GitServer, work: WorkRepository) -> None:
    mirror = checkouts.mirror(NAME, server.url)
    blob = work.git("rev-parse", "HEAD:pkg/f1.py")
    (work.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(InfrastructureError) as caught:
        checkouts.text(mirror, work.head, "pkg/f1.py")
    assert not isinstance(caught.value, Transient)
