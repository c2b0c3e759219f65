"""A diff read from a real repository and split: whatever changed, the halves give it back byte for byte."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from swefactory.checkouts import Checkouts, apply_patch, copy_tree
from swefactory.patches import PatchUnreadable
from swefactory.pull_diffs import PullDiff, pull_diff
from tests.git_repositories import WorkRepository

FILE, RUNNABLE, LINK, SUBMODULE = "100644", "100755", "120000", "160000"
ROWS = b"".join(b"row %d\n" % n for n in range(40))
TEST = b"def test_x():\n    assert 1\n"
PATHS = (
    b"src/a.py", b"src/b c.py", b'src/quo"te.py', "src/\u00fcn\u00ef.py".encode(), b"src/tab\t.py",
    b"src/back\\slash.txt", b"src/new\nline.py", b"src/\xff.py", b" lead.py", b"trail ", b"-dash.py",
    b"a b/x b/x.py", b"README.md", b"x", b"x/inner.py", b"pkg/__init__.py", b"pkg/test.py", b"pkg/data.json",
    b"checks/login.py", b"checks/data.json", b"checks/a.snap", b"tests/test_a.py", b"tests/test \xc3\xa9.py",
    b"tests/\xff.bin", b"tests/data/x.bin", b"tests/helper.py", b"conftest.py", b".gitattributes",
    b"tests/.gitattributes", b".gitmodules", b"setup.cfg", b"vendored", b"tests/vendored",
)  # fmt: skip
CONTENTS = (
    b"", b"\n", b"one\n", b"no end", b"one\r\ntwo\r\n", b"one\r\ntwo\n", b"old mac\rline\r", ROWS,
    ROWS + b"more\n", ROWS.replace(b"row 7", b"row x"), ROWS[:-1], b"caf\xe9\n", b"caf\xe8\n" + ROWS,
    b"\xff\xfeu\0t\0f\0", bytes(range(256)), b"late nul " * 2000 + b"\0\n", b"\xef\xbb\xbfbom\n",
    b"form\x0cfeed\x0b\x1c\xc2\x85\xe2\x80\xa8ends\n", b"* -diff\n*.py binary\n",
    b"* text eol=crlf ident filter=x working-tree-encoding=utf-16\n", TEST, TEST + ROWS, b"import pkg\n$Id$\n",
    b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", b"\\ No newline at end of file\n",
    b"[tool:pytest]\n", b"checks/data.json\n" + ROWS,
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    mode: str
    content: bytes  # of a link its target, of a submodule its commit


Tree = Mapping[bytes, Entry]

ENTRIES = st.one_of(
    st.builds(Entry, st.sampled_from([FILE, FILE, FILE, RUNNABLE]), st.sampled_from(CONTENTS)),
    st.builds(Entry, st.just(LINK), st.sampled_from([b"a.py", b"../tests", b"nowhere", b"x y"])),
    st.builds(Entry, st.just(SUBMODULE), st.sampled_from([b"1" * 40, b"2" * 40])),
)


def consistent(tree: Tree) -> dict[bytes, Entry]:
    """Without files that lie in a file."""
    return {path: entry for path, entry in tree.items() if not any(path.startswith(other + b"/") for other in tree)}


@st.composite
def changes(draw: st.DrawFn) -> tuple[dict[bytes, Entry], dict[bytes, Entry]]:
    before = consistent(draw(st.dictionaries(st.sampled_from(PATHS), ENTRIES, max_size=9)))
    after = dict(before)
    for path in draw(st.lists(st.sampled_from(sorted(before)), unique=True, max_size=6)) if before else []:
        entry = after.pop(path)
        match draw(st.sampled_from(("delete", "move", "move and edit", "mode", "replace"))):
            case "move":
                after[draw(st.sampled_from(PATHS))] = entry
            case "move and edit":
                after[draw(st.sampled_from(PATHS))] = Entry(entry.mode, entry.content + b"edited\n")
            case "mode" if entry.mode in (FILE, RUNNABLE):
                after[path] = Entry(RUNNABLE if entry.mode == FILE else FILE, entry.content)
            case "replace":
                after[path] = draw(ENTRIES)
    after |= draw(st.dictionaries(st.sampled_from(PATHS), ENTRIES, max_size=4))
    # git holds no commit's id that is no hash, and takes no .git* files that are links
    kept = {p: e for p, e in after.items() if not (e.mode == SUBMODULE and len(e.content) != 40)}
    sound = [{p: e for p, e in t.items() if e.mode == FILE or b".git" not in p} for t in (before, kept)]
    return consistent(sound[0]), consistent(sound[1])


class Store:
    """A bare repository into which whole trees are written at once."""

    def __init__(self, folder: Path) -> None:
        self.checkouts = Checkouts(folder / "mirrors", folder / "cache")
        self.mirror = folder / "bare.git"
        self.mirror.mkdir()
        self.git("init", "--quiet", "--bare", "--template=", ".")

    def git(self, *args: str, given: bytes = b"", index: str = "index") -> bytes:
        env = {**os.environ, "GIT_INDEX_FILE": str(self.mirror / index), "GIT_CONFIG_GLOBAL": "/dev/null"}
        ran = subprocess.run(["git", *args], cwd=self.mirror, env=env, input=given, capture_output=True)
        assert ran.returncode == 0, (args, ran.stderr.decode())
        return ran.stdout

    def commit(self, tree: Tree) -> str:
        stream = [b"commit refs/heads/x\ncommitter A <a@b.c> 0 +0000\ndata 0\n\ndeleteall\n"]
        for path, entry in tree.items():
            name = b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'
            if entry.mode == SUBMODULE:
                stream.append(b"M 160000 " + entry.content + b" " + name + b"\n")
            else:
                data = b"data %d\n" % len(entry.content) + entry.content + b"\n"
                stream.append(b"M " + entry.mode.encode() + b" inline " + name + b"\n" + data)
        self.git("fast-import", "--quiet", "--force", given=b"".join(stream))
        return self.git("rev-parse", "refs/heads/x").decode().strip()

    def applied(self, commit: str, patches: Iterable[str]) -> str:
        self.git("read-tree", commit)
        for patch in filter(None, patches):
            self.git("apply", "--cached", "--whitespace=nowarn", "-", given=patch.encode("utf-8"))
        return self.git("write-tree").decode().strip()

    def tree_of(self, commit: str) -> str:
        return self.git("rev-parse", f"{commit}^{{tree}}").decode().strip()

    def unpacked(self, commit: str, patches: Iterable[str]) -> dict[str, tuple[int, bytes]]:
        """Mode and bytes of each file of a plain tree, after the patches."""
        with self.checkouts.scratch() as folder:
            copy_tree(self.checkouts.tree("acme/tool", self.mirror, commit), Path(folder))
            for patch in patches:
                apply_patch(Path(folder), patch)
            return dict(self._files(Path(folder)))

    @staticmethod
    def _files(folder: Path) -> Iterable[tuple[str, tuple[int, bytes]]]:
        for root, folders, names in os.walk(folder):
            for path in (Path(root) / name for name in (*folders, *names)):
                mode = path.lstat().st_mode
                if stat.S_ISLNK(mode):
                    yield str(path.relative_to(folder)), (0, os.fsencode(os.readlink(path)))
                elif stat.S_ISREG(mode):
                    yield str(path.relative_to(folder)), (mode & 0o100, path.read_bytes())


@given(changes())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_halves_give_what_was_merged_in_either_order(trees: tuple[dict[bytes, Entry], dict[bytes, Entry]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        start, end = (store.commit(tree) for tree in trees)
        try:
            diff = pull_diff(store.checkouts, store.mirror, start, end)
        except PatchUnreadable as error:
            event(str(error))
            is_known = "is a file on one side and a folder" in str(error)
            assume(not is_known)
            raise
        halves = (diff.split.patch, diff.split.test_patch)
        assert "\0" not in "".join(halves)
        for order in (halves, halves[::-1]):
            assert store.applied(start, order) == store.tree_of(end)
            assert store.unpacked(start, order) == store.unpacked(end, ())
        before, after = trees
        touched = {os.fsencode(path) for change in diff.split.files for path in change.paths}
        assert touched == {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        assert {os.fsencode(path) for path in diff.test_files} <= touched & after.keys()


def _diff(tmp_path: Path, before: Mapping[str, str | bytes], after: Mapping[str, str | bytes | None]) -> PullDiff:
    work = WorkRepository(tmp_path / "work")
    start = work.commit("before", before)
    end = work.commit("after", after)
    checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
    return pull_diff(checkouts, checkouts.mirror("acme/tool", str(work.path)), start, end)


def test_a_file_that_defines_tests_goes_with_them_though_its_path_says_nothing(tmp_path: Path) -> None:
    diff = _diff(
        tmp_path,
        {"checks/old.py": TEST, "pkg/__init__.py": "", "pkg/test.py": "x = 1\n"},
        {"checks/old.py": None, "checks/new.py": TEST + ROWS, "pkg/test.py": "x = 2\n"},
    )
    assert diff.split.tests == {"checks/old.py", "checks/new.py"}
    assert diff.test_files == ("checks/new.py",)
    assert [change.path for change in diff.split.files if change.path not in diff.split.tests] == ["pkg/test.py"]


def test_the_projects_own_names_of_tests_count(tmp_path: Path) -> None:
    before = {"pytest.ini": "[pytest]\npython_files = *_spec.py\npython_functions = it_*\n"}
    diff = _diff(
        tmp_path, before, {"spec/login_spec.py": "def it_works():\n    assert 1\n", "spec/tools.py": "x = 1\n"}
    )
    assert diff.test_files == ("spec/login_spec.py",)


def test_a_file_that_moves_between_tests_and_source_by_content_is_in_both_halves(tmp_path: Path) -> None:
    after = {"checks/login.py": None, "src/login.py": ROWS}
    diff = _diff(tmp_path, {"checks/login.py": TEST + ROWS, "src/a.py": "x = 1\n"}, after)
    assert "deleted file mode" in diff.split.test_patch
    assert "new file mode" in diff.split.patch


def test_a_file_that_moves_between_tests_and_source_unchanged_may_hold_any_bytes(tmp_path: Path) -> None:
    diff = _diff(tmp_path, {"tests/latin.txt": b"caf\xe9\n"}, {"tests/latin.txt": None, "src/latin.txt": b"caf\xe9\n"})
    for half in (diff.split.patch, diff.split.test_patch):
        assert "GIT binary patch" in half
        assert half.encode()


def test_a_test_that_moves_within_the_tests_stays_a_rename(tmp_path: Path) -> None:
    diff = _diff(
        tmp_path, {"checks/login.py": TEST + ROWS}, {"checks/login.py": None, "tests/test_login.py": TEST + ROWS}
    )
    assert "rename from checks/login.py" in diff.split.test_patch
    assert diff.split.patch == ""


def test_a_giant_diff_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchUnreadable, match="more than 5000000"):
        _diff(tmp_path, {"x.txt": ""}, {"x.txt": "row\n" * 1_300_000})


def test_a_link_to_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    work = WorkRepository(tmp_path / "work")
    start = work.commit("before", {"x.py": "x = 1\n"})
    os.symlink(b"nowhere\xff", os.fsencode(work.path / "link"))
    end = work.commit_all("after")
    checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
    with pytest.raises(PatchUnreadable, match="link is a link"):
        pull_diff(checkouts, checkouts.mirror("acme/tool", str(work.path)), start, end)
