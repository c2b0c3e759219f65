"""What of a patch may be graded: files of a diff are told apart as git does, and nothing steers the tests."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swefactory.checkouts import apply_patch, diff, seal
from swefactory.model_patches import PatchUnreadable, changes, restrict
from tests.fake_sandbox import diff_of, write_tree

BASE = {
    "src/calc.py": "def add(a, b):\n    return a - b\n",
    "tests/test_calc.py": "def test_add(): pass\n",
    "tests/helpers.py": "X = 1\n",
    "conftest.py": "# base\n",
    "pytest.ini": "[pytest]\n",
    "setup.cfg": "[metadata]\nname = calc\n\n[tool:pytest]\naddopts = -ra\n",
    "pyproject.toml": '[project]\nname = "calc"\n\n[tool.pytest.ini_options]\naddopts = "-ra"\n',
}
TEST_PATCH = diff_of(BASE, {**BASE, "tests/test_calc.py": "def test_add(): assert 0\n"})


def restricted(after: Mapping[str, str], removed: tuple[str, ...] = ()) -> tuple[set[str], tuple[str, ...]]:
    """(paths kept, paths dropped) of the change from BASE to BASE with `after` in it."""
    patch = diff_of(BASE, {path: text for path, text in {**BASE, **after}.items() if path not in removed})
    found = restrict(patch, TEST_PATCH, BASE.get)
    return {path for change in changes(found.patch) for path in change.paths}, found.dropped


def test_a_change_of_source_is_kept_as_it_is() -> None:
    patch = diff_of(BASE, {**BASE, "src/calc.py": "def add(a, b):\n    return a + b\n"})
    assert restrict(patch, TEST_PATCH, BASE.get).patch == patch


@pytest.mark.parametrize(
    "path",
    [
        "tests/test_calc.py", "tests/helpers.py", "tests/new/deep.py", "tests/conftest.py", "conftest.py",
        "src/conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", "tox.ini", ".coveragerc", "src/test_more.py",
        "src/calc_test.py", "sitecustomize.py", "src/usercustomize.py", "evil.pth", "src/deep/evil.pth", "pytest.py",
        "pytest/__init__.py", "_pytest/__init__.py", "unittest.py", "src/unittest/__init__.py", "random.py",
        "lib/json.py", "six.so", "Conftest.py", ".gitmodules",
    ],
)  # fmt: skip
def test_a_file_that_steers_the_tests_is_dropped(path: str) -> None:
    patch = diff_of(BASE, {**BASE, "src/calc.py": "good = 1\n", path: "evil = 1\n"})
    found = restrict(patch, TEST_PATCH, BASE.get, installed={"six"})
    assert found.dropped == (path,)
    assert [change.paths for change in changes(found.patch)] == [{"src/calc.py"}]


@pytest.mark.parametrize(
    "path",
    ["src/json_tools.py", "src/calc/json.py", "README.md", "docs/pytest.rst", "testing.py", "src/calc/testing/x.py",
     "contest.py", "random/data.txt", "src/attest_it.py"],
)  # fmt: skip
def test_a_file_that_only_looks_alike_is_kept(path: str) -> None:
    assert restricted({path: "x = 1\n"}) == ({path}, ())


def test_a_module_of_the_base_commit_is_no_shadow() -> None:
    base = {**BASE, "types.py": "a = 1\n"}
    patch = diff_of(base, {**base, "types.py": "a = 2\n"})
    assert restrict(patch, TEST_PATCH, base.get).dropped == ()


def test_removing_or_moving_what_steers_the_tests_is_dropped() -> None:
    assert restricted({}, removed=("conftest.py", "tests/helpers.py"))[1] == ("conftest.py", "tests/helpers.py")
    moved = restricted({"src/moved.py": BASE["tests/helpers.py"]}, removed=("tests/helpers.py",))
    assert "tests/helpers.py" in moved[1]


def test_tests_beside_the_code_protect_only_themselves() -> None:
    base = {"calc/core.py": "a = 1\n", "calc/check_core.py": "b = 1\n"}
    test_patch = diff_of(base, {**base, "calc/check_core.py": "b = 2\n"})
    patch = diff_of(base, {"calc/core.py": "a = 2\n", "calc/check_core.py": "b = 3\n"})
    assert restrict(patch, test_patch, base.get).dropped == ("calc/check_core.py",)


@pytest.mark.parametrize(
    ("path", "text", "is_dropped"),
    [
        ("setup.cfg", BASE["setup.cfg"].replace("name = calc", "name = other"), False),
        ("setup.cfg", BASE["setup.cfg"].replace("-ra", "-p evil"), True),
        ("setup.cfg", BASE["setup.cfg"].replace("[tool:pytest]", "[tool:other]"), True),
        ("setup.cfg", BASE["setup.cfg"] + "filterwarnings = ignore\n", True),
        ("pyproject.toml", BASE["pyproject.toml"].replace('"calc"', '"other"'), False),
        ("pyproject.toml", BASE["pyproject.toml"] + 'python_files = "x"\n', True),
        ("pyproject.toml", BASE["pyproject.toml"] + "[[not toml\n", True),
        ("src/pyproject.toml", '[tool.pytest.ini_options]\naddopts = "-p evil"\n', True),
        ("src/pyproject.toml", '[tool.black]\nline-length = 120\n', False),
    ],
)  # fmt: skip
def test_a_shared_configuration_file_is_dropped_when_its_pytest_section_changes(
    path: str, text: str, is_dropped: bool
) -> None:
    kept, dropped = restricted({path: text})
    assert (dropped == (path,), kept == {path}) == (is_dropped, not is_dropped)


def test_a_removed_shared_configuration_file_is_dropped() -> None:
    assert restricted({}, removed=("setup.cfg",))[1] == ("setup.cfg",)


def test_a_hunk_that_does_not_fit_the_base_commit_is_dropped() -> None:
    patch = diff_of(BASE, {**BASE, "setup.cfg": BASE["setup.cfg"].replace("name = calc", "name = other")})
    assert restrict(patch, TEST_PATCH, {"setup.cfg": "[metadata]\n"}.get).dropped == ("setup.cfg",)


def test_binary_files_modes_links_and_odd_names_are_told_apart(tmp_path: Path) -> None:
    write_tree(tmp_path, {"tool.sh": "echo\n", "old name.py": "a = 1\n" * 20, "gone.txt": "x\n"})
    seal(tmp_path)
    (tmp_path / "tool.sh").chmod(0o755)
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "empty.py").touch()
    (tmp_path / "link").symlink_to("tool.sh")
    (tmp_path / 'qu"ote\té.py').write_text("b\n")
    (tmp_path / "a b" / "b a").mkdir(parents=True)
    (tmp_path / "a b" / "b a" / "x b.py").touch()
    (tmp_path / "old name.py").rename(tmp_path / "new name.py")
    (tmp_path / "gone.txt").unlink()
    assert sorted(path for change in changes(diff(tmp_path)) for path in change.paths) == sorted(
        ["tool.sh", "data.bin", "empty.py", "link", 'qu"ote\té.py', "a b/b a/x b.py", "old name.py", "new name.py",
         "gone.txt"]
    )  # fmt: skip


def test_a_link_to_a_commit_is_dropped() -> None:
    patch = (
        "diff --git a/vendored b/vendored\nnew file mode 160000\nindex 0000000..1111111\n"
        "--- /dev/null\n+++ b/vendored\n@@ -0,0 +1 @@\n+Subproject commit 1111111111111111111111111111111111111111\n"
    )
    assert restrict(patch, "").dropped == ("vendored",)


GOOD = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n"


@pytest.mark.parametrize(
    "patch",
    [
        "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n",
        "some words\n" + GOOD,
        GOOD + "--- a/conftest.py\n+++ b/conftest.py\n@@ -1 +1 @@\n-a\n+b\n",
        GOOD.replace("@@ -1 +1 @@", "@@ -1,3 +1,3 @@"),
        GOOD.replace("-a\n", "*a\n"),
        GOOD.replace("+++ b/x.py", "+++ x.py"),
        "diff --git a/x.py b/conftest.py\nold mode 100644\nnew mode 100755\n",
        'diff --git "a/x.py b/x.py\n',
    ],
)
def test_a_patch_that_git_could_read_in_another_way_is_refused(patch: str) -> None:
    with pytest.raises(PatchUnreadable):
        restrict(patch, "")


def test_all_names_in_a_files_head_count() -> None:
    patch = GOOD.replace("+++ b/x.py", "+++ b/conftest.py")
    assert restrict(patch, "").dropped == ("conftest.py", "x.py")


def test_an_empty_patch_stays_empty() -> None:
    assert restrict("", TEST_PATCH).patch == ""
    assert restrict("\n", TEST_PATCH).patch == ""


names = st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and name.lower() != ".git"
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@settings(max_examples=20, deadline=None)
@given(st.lists(paths, min_size=1, max_size=4, unique=True), st.text(max_size=30))
def test_the_files_of_a_diff_are_those_that_git_names(found: list[str], text: str) -> None:
    files: dict[str, str] = {}
    for path in found:
        if not any(path.startswith(other + "/") or other.startswith(path + "/") for other in files):
            files[path] = text + "\n"
    try:
        patch = diff_of({"base": "1\n"}, {"base": "1\n", **files})
    except (OSError, UnicodeError, subprocess.CalledProcessError):
        return  # a name this file system or git does not take
    assert {path for change in changes(patch) for path in change.paths} == set(files) - {"base"} | (
        {"base"} if files.get("base", "1\n") != "1\n" else set()
    )
    assert "".join(change.text for change in changes(patch)) == patch


def test_two_files_that_are_not_text_stay_as_git_wrote_them() -> None:
    patch = diff_of({"base": "1\n"}, {"base": "1\n", "0": "\0\n", "00": "\0\n", "1": "text\n"})
    assert patch.count("GIT binary patch") == 2
    assert [change.text.count("\n\n") for change in changes(patch)] == [2, 2, 0]
    assert restrict(patch, TEST_PATCH).patch == patch


def test_a_restricted_patch_applies_and_touches_nothing_that_was_dropped(tmp_path: Path) -> None:
    after = {**BASE, "src/calc.py": "x = 1\n", "conftest.py": "evil\n", "tests/helpers.py": "X = 2\n"}
    found = restrict(diff_of(BASE, after), TEST_PATCH, BASE.get)
    apply_patch(write_tree(tmp_path, BASE), found.patch)
    assert (tmp_path / "src/calc.py").read_text() == "x = 1\n"
    assert (tmp_path / "conftest.py").read_text() == BASE["conftest.py"]
    apply_patch(tmp_path, TEST_PATCH)
