"""A diff split into patch and test_patch, by git's own words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swefactory.checkouts import Checkouts
from swefactory.file_kinds import FileKind
from swefactory.patches import (
    PatchUnreadable,
    SplitPatch,
    crossing_renames,
    file_changes,
    split_patch,
    unstorable_paths,
)
from tests.git_repositories import WorkRepository

TEXT = """\
diff --git a/src/x.py b/src/x.py
index 1111111..2222222 100644
--- a/src/x.py
+++ b/src/x.py
@@ -1,2 +1,2 @@ def f():
 a = 1
-b = 2
+b = 3
"""
TESTS = TEXT.replace("src/x.py", "tests/test_x.py")


def split_of(diff: str) -> SplitPatch:
    return split_patch(file_changes(diff))


def test_tests_and_source_part_and_nothing_is_lost() -> None:
    split = split_of(TEXT + TESTS)
    assert (split.patch, split.test_patch) == (TEXT, TESTS)
    assert split.tests == {"tests/test_x.py"}
    assert split.kinds == {FileKind.SOURCE, FileKind.TEST}
    assert split.changes_python


@pytest.mark.parametrize(("path", "is_code"), [("pkg/_speed.c", True), ("tests/helper.c", False), ("a.json", False)])
def test_what_an_extension_module_is_compiled_from_is_code(path: str, is_code: bool) -> None:
    assert split_of(TEXT.replace("src/x.py", path) + TESTS).changes_python is is_code


def test_an_empty_diff_has_two_empty_halves() -> None:
    split = split_of("")
    assert (split.patch, split.test_patch, split.files, split.changes_python) == ("", "", (), False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello", "hello"),
        (TEXT.replace("+b = 3\n", ""), "src/x.py"),
        (TEXT.replace("@@ -1,2 +1,2 @@", "@@ -1,3 +1,2 @@"), "src/x.py"),
        (TEXT + "stray\n", "src/x.py"),
        (TEXT.removesuffix("\n"), "src/x.py"),
        ("diff --git a/x.png b/x.png\nindex 1..2 100644\nBinary files a/x.png and b/x.png differ\n", "binary"),
        ("diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 9\nzcmZQz", "cut off"),
        ("diff --git a/x b/y\nold mode 100644\nnew mode 100755\n", "cannot be told"),
    ],
)
def test_what_is_no_whole_git_diff_is_refused_with_its_file(text: str, says: str) -> None:
    with pytest.raises(PatchUnreadable, match=says):
        split_of(text)


def _diff_of(
    tmp_path: Path, before: dict[str, bytes], change: dict[str, bytes | None], moves: tuple[str, ...] = ()
) -> str:
    work = WorkRepository(tmp_path / "work")
    old = work.commit("before", before)
    if moves:
        work.git("mv", *moves)
    new = work.commit("after", change)
    checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
    return checkouts.diff(checkouts.mirror("acme/tool", str(work.path)), old, new)


def test_renames_deletions_modes_and_binaries_survive(tmp_path: Path) -> None:
    lines = b"".join(b"line %d\n" % n for n in range(30))
    work = WorkRepository(tmp_path / "work")
    blob = bytes(range(256)) * 4
    old = work.commit("one", {"a.py": lines, "gone.py": b"x\n", "run.sh": b"#!\n", "b.bin": blob, "tests/d.bin": blob})
    work.git("mv", "a.py", "new name.py")
    (work.path / "run.sh").chmod(0o755)
    (work.path / "empty.py").touch()
    change = {
        "gone.py": None,
        "b.bin": blob[::-1],
        "tests/d.bin": None,
        "new name.py": lines + b"last",
        "t\xe9st.py": b"q\n",
    }
    new = work.commit("two", change)
    checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
    mirror = checkouts.mirror("acme/tool", str(work.path))
    text = checkouts.diff(mirror, old, new)
    changes = {change.path: change for change in file_changes(text)}
    assert set(changes) == {"new name.py", "gone.py", "run.sh", "b.bin", "tests/d.bin", "empty.py", "tést.py"}
    assert changes["new name.py"].old_path == "a.py"
    assert "rename from a.py\n" in changes["new name.py"].text
    assert changes["gone.py"].new_path is None
    assert changes["empty.py"].old_path is None
    assert "new mode 100755" in changes["run.sh"].text
    assert changes["b.bin"].is_binary
    split = split_of(text)
    assert sorted(file_changes(split.patch) + file_changes(split.test_patch), key=str) == sorted(
        file_changes(text), key=str
    )
    for first, second in ((split.patch, split.test_patch), (split.test_patch, split.patch)):
        assert checkouts.applies(mirror, old, first + second)


def test_whoever_splits_says_which_files_are_tests() -> None:
    split = split_patch(file_changes(TEXT + TESTS), {"src/x.py"}.__contains__)
    assert (split.patch, split.test_patch, split.tests) == (TESTS, TEXT, {"src/x.py"})
    assert split.kinds == {FileKind.SOURCE, FileKind.TEST}


def test_a_file_of_one_half_in_the_place_of_a_folder_of_the_other_is_refused(tmp_path: Path) -> None:
    text = _diff_of(tmp_path, {"check": b"x\n"}, {"check": None, "check/test_x.py": b"y\n"})
    with pytest.raises(PatchUnreadable, match="check is a file on one side and a folder"):
        split_of(text)
    assert split_patch(file_changes(text), lambda path: True).patch == ""


def test_a_file_that_moves_from_source_to_tests_is_told_and_refused(tmp_path: Path) -> None:
    text = _diff_of(
        tmp_path,
        {"helper.py": b"".join(b"%d\n" % n for n in range(20)), "tests/a": b""},
        {},
        ("helper.py", "tests/helper.py"),
    )
    assert crossing_renames(file_changes(text))
    with pytest.raises(PatchUnreadable, match=r"helper\.py -> tests/helper\.py"):
        split_of(text)


def test_odd_bytes_and_line_ends_are_kept(tmp_path: Path) -> None:
    text = _diff_of(
        tmp_path,
        {"x.py": b"a\r\nb\x0cc\r\n\xe9\n", "y.py": b"no end"},
        {"x.py": b"a\r\nb\x0cd\r\n\xe8\n", "y.py": b"still no end"},
    )
    split = split_of(text)
    assert split.patch.encode("utf-8", "surrogateescape").count(b"\xe8") == 1
    assert split.patch == text
    assert unstorable_paths(file_changes(text)) == ("x.py",)


@pytest.mark.parametrize(
    "name", ["a b.py", 'quote".py', "tab\there.py", "ünï.py", "back\\slash.py", "a b/x b/x.py", "-dash.py"]
)
def test_every_name_that_git_can_write_is_read(tmp_path: Path, name: str) -> None:
    text = _diff_of(tmp_path, {name: b"1\n", f"m{name}": b"1\n"}, {name: b"2\n", f"m{name}": None, f"n{name}": b""})
    assert {change.path for change in file_changes(text)} == {name, f"m{name}", f"n{name}"}


@given(st.lists(st.sampled_from([TEXT, TESTS, TEXT.replace("x.py", "y.py"), "junk\n", "\n", TEXT[:-9]]), max_size=5))
def test_a_split_loses_no_byte_or_refuses(sections: list[str]) -> None:
    text = "".join(sections)
    try:
        split = split_of(text)
    except PatchUnreadable:
        return
    assert len(split.patch) + len(split.test_patch) == len(text)
    assert "".join(change.text for change in split.files) == text
