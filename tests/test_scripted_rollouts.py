"""The scripts that a model plays on real instances: they say the gold patch whole, or nothing of it."""

import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rollouts.replay import chosen
from benchmarks.rollouts.scripts import FAILING, SOLVING, Kind, replacements, statement_of, write_script
from db.enums import ExitStatus
from swefactory.agents.prompts import prompt_text
from swefactory.trees import diff, seal

FILES = {
    "pkg/calc.py": "def add(a, b):\n    return a - b\n\n\ndef sub(a, b):\n    return a - b\n",
    "pkg/odd name.py": "x = 1\r\ny = 2\r\n",
    "pkg/old.py": "gone = True\n",
    "pkg/run.sh": "#!/bin/sh\n",
    "NOTES": "a note without an end",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A sealed tree of the base commit."""
    folder = tmp_path / "base"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, newline="")
    seal(folder)
    return folder


def gold(base: Path, tmp_path: Path) -> str:
    """A fix that changes text in two places, and adds, removes, renames and sets modes."""
    fixed = tmp_path / "fixed"
    subprocess.run(["cp", "-a", base, fixed], check=True)
    (fixed / "pkg/calc.py").write_text(FILES["pkg/calc.py"].replace("a - b", "b + a", 1) + "\n\nlast = 'é'\n")
    (fixed / "pkg/odd name.py").write_text("x = 1\r\ny = 3\r\n", newline="")
    (fixed / "pkg/old.py").rename(fixed / "pkg/new.py")
    (fixed / "pkg/run.sh").chmod(0o755)
    (fixed / "pkg/added.py").write_text("\tz = '$HOME `id` \\\\n'\n")
    (fixed / "NOTES").write_text("a note\nwith an end\n")
    return diff(fixed)


def do(tree: Path, tool: str, arguments: Mapping[str, Any]) -> None:
    """What the tools do, for the calls that scripts make."""
    path = tree / str(arguments.get("path", "")).removeprefix("/testbed/")
    match tool, arguments["command"]:
        case "terminal", command:
            command = command.replace("/testbed", shlex.quote(str(tree)))
            subprocess.run(["bash", "-ec", command], cwd=tree, check=True, capture_output=True)
        case _, "create":
            assert not path.exists()
            path.write_text(arguments["file_text"])
        case _, "str_replace":
            text = path.read_text()
            assert text.count(arguments["old_str"]) == 1
            path.write_text(text.replace(arguments["old_str"], arguments["new_str"]))
        case _, "insert":
            path.write_text(f"{arguments['new_str']}\n{path.read_text()}")
        case _, other:
            assert (other, path.is_file()) == ("view", True)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_script_does_the_fix_byte_by_byte_or_another_thing(base: Path, tmp_path: Path, kind: Kind) -> None:
    patch, scratch = gold(base, tmp_path), tmp_path / "scratch"
    scratch.mkdir()
    script = write_script(kind, patch, base, scratch)
    for _, tool, arguments in script.calls[:-1]:
        do(base, tool, arguments)
    assert script.calls[-1][1] == "finish"
    done = diff(base)
    assert (script.solves, done == patch) == (kind in SOLVING, kind in SOLVING)
    assert (done == "") is (kind is Kind.GIVES_UP)
    assert script.exit_status is (ExitStatus.SUBMITTED if done else ExitStatus.EMPTY_PATCH)
    used = {(tool, arguments.get("command")) for _, tool, arguments in script.calls}
    assert ({("file_editor", "str_replace"), ("file_editor", "create")} <= used) is (kind is Kind.EDITOR)


_TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "\n", "c"]), min_size=1, max_size=12).map("".join)


@given(old=_TEXTS, new=_TEXTS)
def test_replacements_turn_one_text_into_another_each_at_a_place_of_its_own(old: str, new: str) -> None:
    text = old
    for found, replaced in replacements(old, new):
        assert found != replaced
        assert text.find(found) == text.rfind(found) >= 0
        text = text.replace(found, replaced)
    assert text == new


def test_the_choice_takes_repositories_in_turn_and_halves_solve() -> None:
    known = {f"{name}-{number}": name for name, n in (("big", 9), ("mid", 4), ("one", 1)) for number in range(n)}
    picked = chosen(known, 8, "1")
    assert Counter(known[name] for name in picked) == {"big": 4, "mid": 3, "one": 1}
    assert chosen(dict(reversed(known.items())), 8, "1") == picked
    assert chosen(known, 8, "2") != picked
    assert not set(SOLVING) & set(FAILING)


def test_a_conversation_is_known_by_the_statement_of_its_task() -> None:
    told = prompt_text("task.txt").replace("@STATEMENT@", "It breaks.\n\n<issue>quoted</issue>")
    for content in (told, [{"type": "text", "text": told}]):
        messages = [{"role": "system", "content": "x"}, {"role": "user", "content": content}]
        assert statement_of(messages) == "It breaks.\n\n<issue>quoted</issue>"
    assert statement_of([{"role": "user", "content": "hm"}]) == ""
