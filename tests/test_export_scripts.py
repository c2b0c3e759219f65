"""What graders outside run: no id, name or patch ends a quotation; a verdict is believed only from its own record."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swefactory.evaluation import INPUTS
from swefactory.exports.scripts import END, START, _applied, _words, eval_script
from swefactory.exports.test_names import clash, original, printable
from tests.fake_sandbox import diff_of

TESTS = """\
import pytest, sys

@pytest.mark.parametrize("value", ["a b", "\\t", "ä", "x - y"])
def test_it(value):
    print("PASSED tests/test_a.py::test_forged\\nFAILED tests/test_a.py::test_it[a b]")

def test_broken(): assert False
@pytest.mark.skip
def test_skipped(): pass
def test_xfails(): pytest.xfail("no proof")
def test_ends_the_process():
    if "--end" in open("mode").read(): __import__("os")._exit(0)
"""
LISTED = ["tests/test_a.py::test_it[a b]", "tests/test_a.py::test_it[x - y]"]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    folder.mkdir()
    for name in ("swefactory_run.py", "swefactory_plugin.py", "swefactory_verdict.py"):
        shutil.copy(INPUTS / name, folder / name)
    (folder / "environment.json").write_text(json.dumps({"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}))
    return folder


def verdict(inputs: Path, tree: Path, mode: str, fail_to_pass: list[str]) -> tuple[list[str], int, dict[str, int]]:
    """The lines a parser would read, the exit code, and the reward."""
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "tests").mkdir(parents=True)
    (tree / "tests" / "test_a.py").write_text(TESTS)
    (tree / "mode").write_text(mode)
    (inputs / "tests.json").write_text(json.dumps({"FAIL_TO_PASS": fail_to_pass, "PASS_TO_PASS": []}))
    command = [sys.executable, "-E", "-S", inputs / "swefactory_verdict.py", "--tests", inputs / "tests.json"]
    ran = subprocess.run(
        [*command, "--reward", inputs / "reward.json", "tests/test_a.py", "tests/absent.py"],
        env={"SWEFACTORY_TREE": str(tree), "SWEFACTORY_USER": str(os.getuid())},
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    lines = [line for line in ran.stdout.decode().splitlines() if not line.startswith("| ")]
    return lines, ran.returncode, json.loads((inputs / "reward.json").read_text())


def test_the_verdict_keeps_whole_ids_and_takes_no_word_of_the_tests_for_its_own(inputs: Path, tmp_path: Path) -> None:
    lines, code, reward = verdict(inputs, tmp_path / "tree", "", LISTED)
    assert lines == [
        "FAILED tests/test_a.py::test_broken",
        "PASSED tests/test_a.py::test_ends_the_process",
        "PASSED tests/test_a.py::test_it[\\t]",
        "PASSED tests/test_a.py::test_it[\\xe4]",
        "PASSED tests/test_a.py::test_it[a␠b]",
        "PASSED tests/test_a.py::test_it[x␠-␠y]",
    ]
    assert (code, reward) == (1, {"reward": 1})
    assert verdict(inputs, tmp_path / "tree", "", [*LISTED, "tests/test_a.py::test_xfails"])[2] == {"reward": 0}
    assert verdict(inputs, tmp_path / "tree", "--end", LISTED) == (["ERROR run-is-no-evidence"], 1, {"reward": 0})


NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=30, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=5))
def test_any_name_is_one_word_of_the_shell(names: list[str]) -> None:
    ran = subprocess.run(["bash", "-c", f"printf '%s\\0' {_words(names)}"], capture_output=True, check=True)
    assert ran.stdout.decode() == "".join(f"{name}\0" for name in names)


@settings(max_examples=30, deadline=None)
@given(
    st.text(st.characters(blacklist_characters="\0"), max_size=200)
    | st.sampled_from([START, f"+{END}\n", "+a\r\n", "+a"])
)
def test_any_patch_comes_out_of_its_here_document_as_it_went_in(patch: str) -> None:
    data = patch.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    script = _applied(data).replace("git apply --verbose --whitespace=nowarn -", "cat", 1)
    ran = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert ran.stdout == data.encode("utf-8", "surrogateescape")
    assert START not in script
    assert END not in script


def test_the_line_before_the_end_marker_is_the_test_command() -> None:
    script = eval_script(diff_of({}, {"tests/test_a b.py": "x = 1\n"}), ["tests/test_a b.py"])
    lines = script.splitlines()
    (end,) = [number for number, line in enumerate(lines) if END in line]
    assert lines[end - 1].endswith("swefactory_verdict.py 'tests/test_a b.py'")
    assert subprocess.run(["bash", "-n"], input=script.encode(), check=True)


@given(st.text(max_size=30))
def test_an_id_is_one_word_whose_white_space_comes_back(test_id: str) -> None:
    word = printable(f"t.py::{test_id}")
    assert len(word.split()) == 1
    if test_id.isascii() and test_id.isprintable():
        assert original(word) == f"t.py::{test_id}"


def test_ids_of_one_word_clash() -> None:
    assert clash(["t::a[x y]", "t::a[x␠y]", "t::b"]) == ["t::a[x y]", "t::a[x␠y]"]
    assert clash(["t::a[x y]", "t::a[x  y]"]) == []
