"""Mirrors, trees and patches, with real git."""

import base64
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from db.enums import RejectReason
from swefactory.checkouts import Checkouts, apply_patch, copy_tree, diff, run_git, seal
from swefactory.errors import InfrastructureError, Rejected, Transient
from tests.conftest import free_port
from tests.git_repositories import WorkRepository

PATCH = """\
diff --git a/x.py b/x.py
--- a/x.py
+++ b/x.py
@@ -1 +1 @@
-1
+2
"""


@pytest.fixture
def checkouts(tmp_path: Path) -> Checkouts:
    return Checkouts(tmp_path / "mirrors", tmp_path / "cache")


@pytest.fixture
def work(tmp_path: Path) -> WorkRepository:
    repository = WorkRepository(tmp_path / "work")
    repository.commit("one", {"x.py": "1\n"})
    return repository


def test_a_mirror_is_cloned_once_and_grows_when_asked(checkouts: Checkouts, work: WorkRepository) -> None:
    first = work.head
    mirror = checkouts.mirror("acme/tool", str(work.path))
    second = work.commit("two", {"x.py": "2\n"})
    assert checkouts.mirror("acme/tool", str(work.path)) == mirror == checkouts.path_of("acme/tool")
    assert checkouts.commit_exists(mirror, first)
    assert not checkouts.commit_exists(mirror, second)
    checkouts.mirror("acme/tool", str(work.path), fetch=True)
    assert checkouts.commit_exists(mirror, second)


def test_a_mirror_keeps_commits_that_their_repository_threw_away(checkouts: Checkouts, work: WorkRepository) -> None:
    work.branch("topic")
    gone = work.commit("gone", {"y.py": "1\n"})
    mirror = checkouts.mirror("acme/tool", str(work.path))
    work.switch("main")
    work.git("branch", "-D", "topic")
    checkouts.mirror("acme/tool", str(work.path), fetch=True)
    assert checkouts.commit_exists(mirror, gone)
    assert run_git(mirror, "branch", "--list", "topic") == b""


def test_a_pull_request_head_that_no_branch_holds_is_fetched_alone(checkouts: Checkouts, work: WorkRepository) -> None:
    work.branch("topic")
    head = work.commit("a squashed head", {"y.py": "1\n"})
    work.git("update-ref", "refs/pull/7/head", head)
    work.switch("main")
    work.git("branch", "-D", "topic")
    mirror = checkouts.mirror("acme/tool", str(work.path))
    assert not checkouts.commit_exists(mirror, head)
    checkouts.mirror_with("acme/tool", str(work.path), ["1" * 40, head, ""])
    assert checkouts.commit_exists(mirror, head)
    assert not checkouts.commit_exists(mirror, "1" * 40)


def test_two_at_once_make_one_mirror(checkouts: Checkouts, work: WorkRepository) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(checkouts.mirror("acme/tool", str(work.path), fetch=True)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert checkouts.commit_exists(found[0], work.head)
    assert sorted(path.name for path in found[0].parent.iterdir()) == ["acme+tool.git", "acme+tool.lock"]


@pytest.mark.parametrize("address", ["/nowhere/at/all", "ssh://example.org/x.git"])
def test_an_address_without_a_repository_is_a_verdict(checkouts: Checkouts, address: str) -> None:
    with pytest.raises(Rejected, match="acme/tool") as caught:
        checkouts.mirror("acme/tool", address)
    assert caught.value.reason is RejectReason.REPOSITORY_NOT_FOUND


def test_an_empty_repository_is_a_verdict(checkouts: Checkouts, tmp_path: Path) -> None:
    empty = WorkRepository(tmp_path / "empty")
    with pytest.raises(Rejected, match="acme/tool"):
        checkouts.mirror("acme/tool", str(empty.path))


def test_a_server_that_is_down_means_later_and_its_password_is_not_told(checkouts: Checkouts) -> None:
    with pytest.raises(Transient, match="acme/tool") as caught:
        checkouts.mirror("acme/tool", f"http://me:hunter2@127.0.0.1:{free_port()}/acme/tool.git")
    assert "hunter2" not in str(caught.value)
    assert caught.value.retry_after_s > 0


def test_a_tree_holds_the_bytes_of_the_commit(checkouts: Checkouts, work: WorkRepository, tmp_path: Path) -> None:
    attributes = "a export-ignore\nb export-subst\nc text eol=crlf\nd filter=evil\ne ident\n"
    files = {".gitattributes": attributes, "a": "a\n", "b": "$Format:%H$\n", "c": "c\n", "d": "d\n", "e": "$Id$\n"}
    work.commit("files", files)
    work.git("config", "filter.evil.smudge", f"touch {tmp_path}/evil; cat")
    (work.path / "link").symlink_to("a")
    (work.path / "run.sh").write_text("#!/bin/sh\n")
    (work.path / "run.sh").chmod(0o755)
    commit = work.commit_all("a link and a program")
    mirror = checkouts.mirror("acme/tool", str(work.path))
    tree = checkouts.tree("acme/tool", mirror, commit)
    assert {path.name for path in tree.iterdir()} == {*files, "x.py", "link", "run.sh"}
    assert {name: (tree / name).read_text() for name in files} == files
    assert (tree / "link").readlink() == Path("a")
    assert (tree / "run.sh").stat().st_mode & 0o111
    assert not (tree / ".git").exists()
    assert not (tmp_path / "evil").exists()
    assert checkouts.tree("acme/tool", mirror, commit) == tree
    assert [path.name for path in tree.parent.iterdir()] == [commit]


def test_a_missing_commit_has_no_tree(checkouts: Checkouts, work: WorkRepository) -> None:
    mirror = checkouts.mirror("acme/tool", str(work.path))
    with pytest.raises(Rejected) as caught:
        checkouts.tree("acme/tool", mirror, "1" * 40)
    assert caught.value.reason is RejectReason.BASE_COMMIT_MISSING


def test_git_variables_of_a_hook_do_not_misdirect(
    checkouts: Checkouts, work: WorkRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = WorkRepository(tmp_path / "other")
    other.commit("other", {"secret": "1\n"})
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    head = run_git(work.path, "rev-parse", "HEAD").decode().strip()
    mirror = checkouts.mirror("acme/tool", str(work.path))
    assert (checkouts.tree("acme/tool", mirror, head) / "x.py").read_text() == "1\n"


def test_a_diff_is_the_same_whatever_the_repository_wishes(checkouts: Checkouts, work: WorkRepository) -> None:
    attributes = "*.py diff=python\n*.txt -diff\n*.md diff=shout\n"
    old = work.commit("old", {".gitattributes": attributes, "x.py": "1\n", "a.txt": "a\n", "b.md": "b\n"})
    new = work.commit("new", {"x.py": "2\n", "a.txt": "A\n", "b.md": "B\n"})
    mirror = checkouts.mirror("acme/tool", str(work.path))
    text = checkouts.diff(mirror, old, new)
    assert all(line in text for line in ("\n+2\n", "\n+A\n", "\n+B\n"))


def test_named_files_come_as_binary_hunks_that_apply(checkouts: Checkouts, work: WorkRepository) -> None:
    old = work.commit("old", {"a b*.py": b"\xe9\n", "a bc.py": "1\n"})
    new = work.commit("new", {"a b*.py": b"\xe8\n", "a bc.py": "2\n"})
    mirror = checkouts.mirror("acme/tool", str(work.path))
    text = checkouts.diff(mirror, old, new, as_binary=["a b*.py"])
    assert text.isascii()
    assert text.count("GIT binary patch") == 1
    assert checkouts.applies(mirror, old, text)
    assert not checkouts.applies(mirror, new, text)


def lose(mirror: Path, blob: str) -> None:
    """Takes one object out of a mirror."""
    for pack in (mirror / "objects" / "pack").glob("*.pack"):
        moved = pack.rename(mirror / pack.name)
        run_git(mirror, "unpack-objects", "-q", stdin=moved.read_bytes())
    (mirror / "objects" / blob[:2] / blob[2:]).unlink()


def make_whole(mirror: Path) -> None:
    """What mirrors were before they were partial clones: no origin, all objects."""
    (mirror / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
    for promise in (mirror / "objects" / "pack").glob("*.promisor"):
        promise.unlink()


def test_lost_objects_of_a_whole_mirror_are_our_fault_and_say_what_to_do(
    checkouts: Checkouts, work: WorkRepository
) -> None:
    old = work.head
    new = work.commit("two", {"x.py": "2\n"})
    mirror = checkouts.mirror("acme/tool", str(work.path))
    make_whole(mirror)
    lose(mirror, run_git(mirror, "rev-parse", f"{new}:x.py").decode().strip())
    with pytest.raises(InfrastructureError, match="delete that folder"):
        checkouts.diff(mirror, old, new)


def test_a_whole_mirror_of_earlier_versions_goes_on(checkouts: Checkouts, work: WorkRepository, tmp_path: Path) -> None:
    old = work.head
    make_whole(checkouts.mirror("acme/tool", str(work.path)))
    new = work.commit("two", {"x.py": "2\n"})
    again = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
    mirror = again.mirror("acme/tool", str(work.path), fetch=True)
    assert "\n+2\n" in again.diff(mirror, old, new)
    assert not list((mirror / "objects" / "pack").glob("*.promisor"))


def test_the_facts_of_a_commit(checkouts: Checkouts, work: WorkRepository) -> None:
    first = work.head
    work.git("tag", "v1.4.2")
    second = work.commit("two", {"sub/y.py": "é\n"})
    mirror = checkouts.mirror("acme/tool", str(work.path))
    assert checkouts.text(mirror, second, "sub/y.py") == "é\n"
    assert checkouts.text(mirror, second, "nothing.py") is None
    assert checkouts.paths(mirror, second) == ("sub/y.py", "x.py")
    assert checkouts.nearest_tag(mirror, second) == "v1.4.2"
    assert (checkouts.parent(mirror, second), checkouts.parent(mirror, first)) == (first, None)
    assert checkouts.merge_base(mirror, first, second) == first
    assert checkouts.merge_base(mirror, first, "1" * 40) is None


def test_a_patch_applies_in_a_folder_inside_another_repository(work: WorkRepository) -> None:
    inner = work.path / ".swefactory" / "scratch"
    inner.mkdir(parents=True)
    (inner / "x.py").write_text("1\n")
    apply_patch(inner, PATCH)
    assert (inner / "x.py").read_text() == "2\n"
    assert (work.path / "x.py").read_text() == "1\n"
    apply_patch(inner, "")


@pytest.mark.parametrize(
    "patch",
    [
        PATCH.replace("-1\n", "-9\n"),
        PATCH + PATCH.replace("x.py", "missing.py"),
        PATCH.replace("x.py", "../x.py"),
        "diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+/tmp\n"
        "diff --git a/link/y b/link/y\nnew file mode 100644\n--- /dev/null\n+++ b/link/y\n@@ -0,0 +1 @@\n+1\n",
        PATCH.replace("x.py", ".git/config"),
        "nonsense\n",
    ],
)
def test_a_patch_that_does_not_fit_or_leaves_the_folder_changes_nothing(tmp_path: Path, patch: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x.py").write_text("1\n")
    (tmp_path / "x.py").write_text("1\n")
    with pytest.raises(ValueError, match=r".+"):
        apply_patch(folder, patch)
    assert [path.name for path in folder.iterdir()] == ["x.py"]
    assert (folder / "x.py").read_text() == (tmp_path / "x.py").read_text() == "1\n"


def test_a_sealed_tree_holds_one_commit_and_no_line_end_is_changed(
    checkouts: Checkouts, work: WorkRepository, tmp_path: Path
) -> None:
    (work.path / ".git" / "info").mkdir(exist_ok=True)
    (work.path / ".git" / "info" / "attributes").write_text("* -text\n")
    attributes = "*.txt text=auto eol=lf\n*.bat text eol=crlf\n"
    files = {".gitattributes": attributes, ".gitignore": "*.log\n", "a.txt": "a\r\n", "b.log": "b\n", "c.bat": "c\n"}
    commit = work.commit("files", files)
    tree = checkouts.tree("acme/tool", checkouts.mirror("acme/tool", str(work.path)), commit)
    folder = tmp_path / "sealed"
    folder.mkdir()
    copy_tree(tree, folder)
    sealed = seal(folder)
    objects = run_git(folder, "cat-file", "--batch-all-objects", "--batch-check").decode()
    assert objects.count(" commit ") == 1
    assert sealed != commit
    assert run_git(folder, "ls-files").decode().split() == [*files, "x.py"]
    (folder / "a.txt").write_bytes(b"A\r\n")
    (folder / "c.bat").write_bytes(b"C\n")
    (folder / "new.bin").write_bytes(bytes(range(256)))
    change = diff(folder)
    other = tmp_path / "other"
    other.mkdir()
    copy_tree(tree, other)
    apply_patch(other, change)
    assert (other / "a.txt").read_bytes() == b"A\r\n"
    assert (other / "c.bat").read_bytes() == b"C\n"
    assert (other / "new.bin").read_bytes() == bytes(range(256))
    assert (tree / "a.txt").read_bytes() == b"a\r\n"


def test_a_seal_is_the_same_whenever_it_is_made(work: WorkRepository, tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        copy_tree(work.path, tmp_path / name)
        ids.add(seal(tmp_path / name))
    assert len(ids) == 1


class _Recorder(BaseHTTPRequestHandler):
    authorisations: list[str | None]

    def do_GET(self) -> None:
        self.authorisations.append(self.headers.get("Authorization"))
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[tuple[str, list[str | None]]]:
    """A server that has no repository, and the Authorization of each request."""
    seen: list[str | None] = []
    handler = type("Handler", (_Recorder,), {"authorisations": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def test_the_token_goes_to_its_own_host_only(tmp_path: Path, recorder: tuple[str, list[str | None]]) -> None:
    address, seen = recorder
    for api_url in (address, "https://api.github.com", f"http://127.0.0.1:{free_port()}"):
        with pytest.raises(Rejected):
            Checkouts(tmp_path, tmp_path, "s3cret", api_url).mirror("acme/tool", f"{address}/acme/tool.git")
    expected = "Basic " + base64.b64encode(b"x-access-token:s3cret").decode()
    assert seen == [expected] * 2 + [None] * 4, "each refusal is asked for twice before it counts"


def test_copying_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="nothing"):
        copy_tree(tmp_path / "nothing", tmp_path)


def test_run_git_never_climbs_into_a_repository_above(work: WorkRepository) -> None:
    below = work.path / "below"
    below.mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        run_git(below, "rev-parse", "HEAD")
