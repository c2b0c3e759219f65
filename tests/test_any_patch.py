"""Any patch through the path policy: what git does with the rest touches nothing protected, and it is settled at once.

Diffs of every kind (new, changed, deleted, renamed, copied, other mode, binary, no end of line) on plain, odd and
protected names, in part with a line that is out of place. git itself says what a patch does.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from swefactory.model_patches import PatchUnreadable, changes, restrict
from swefactory.trees import apply_patch
from tests.fake_sandbox import diff_of, write_tree

BASE = {
    "src/calc.py": "a = 1\nb = 2\n",
    "data.txt": "one\ntwo",
    'src/\u00fc "x".py': "u = 1\n",
    "tests/test_calc.py": "def test_add(): pass\n",
    "tests/helpers.py": "X = 1\n",
    "conftest.py": "# base\n",
    "pytest.ini": "[pytest]\n",
}
TEST_PATCH = diff_of(BASE, {**BASE, "tests/test_calc.py": "def test_add(): assert 0\n"})
PROTECTED = ("tests/test_calc.py", "tests/helpers.py", "conftest.py", "pytest.ini")
NEW = [
    "new.py", "src/deep/new.py", "with space.py", "tab\there.py", "new\nline.py", "back\\slash.py", "a/b/b/c.py",
    "dev/null", "tests/new.py", "src/conftest.py", "Conftest.py", "pytest.py", "tox.ini", "evil.pth", "src/test_x.py",
    "sitecustomize.py", ".git/hooks/pre-commit", "../outside.py", "/tmp/outside.py", "sub/.GIT/config", ".gitmodules",
    "random.py", "x b/conftest.py",
]  # fmt: skip
STEERS = re.compile(
    r"^(tests/|/)|(^|/)(conftest\.py|pytest\.ini|tox\.ini|sitecustomize\.py|\.gitmodules|\.git|\.\.|test_[^/]*\.py|[^/]*\.pth)($|/)",
    re.IGNORECASE,
)
SHADOWS = re.compile(r"^(pytest|random)\.py$")
OUT_OF_PLACE = [
    "--- a/conftest.py", "+++ b/conftest.py", "diff --git a/x.py b/conftest.py", "diff --git a/pytest.py b/pytest.py",
    "rename to conftest.py", "rename from tests/helpers.py", "copy to evil.pth", "deleted file mode 100644",
    "new file mode 120000", "new file mode 160000", "@@ -1 +1 @@", "@@ -0,0 +1,9 @@", "GIT binary patch", "", "\r",
    "\\ No newline at end of file", "index 0000000..1111111", "--- /dev/null", "+++ /dev/null", "+++ b/pytest.py",
    'diff --git "a/x.py" "b/\\143onftest.py"', "similarity index 100%", "old mode 100644", "+evil",
]  # fmt: skip
TEXTS = [
    "x = 1\n",
    "x = 1",
    "tests/helpers.py",
    "é\r\n",
    "\n\n",
    "-- a/conftest.py\n++ b/conftest.py\n",
    "@@ -1 +1 @@\n",
]


def quoted(name: str) -> str:
    """A name as git writes it."""
    odd = [byte < 32 or byte > 126 or byte in b'"\\' for byte in name.encode()]
    told = "".join(f"\\{byte:03o}" if o else chr(byte) for byte, o in zip(name.encode(), odd, strict=True))
    return f'"{told}"' if any(odd) else name


def lines_of(text: str, mark: str) -> list[str]:
    lines = [mark + line for line in text.split("\n")]
    return lines[:-1] if text.endswith("\n") else [*lines, "\\ No newline at end of file"]


def n_lines(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n"))


_BINARY = [
    f"index {'0' * 40}..90802fedc2462f10bf2114d086cacb9e3af99ffb", "GIT binary patch",
    "literal 2", "JcmYdf0002Q0Ac_D", "", "literal 0", "HcmV?d00001", "",
]  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One file's part of a diff; `kind` is what happens to `old`, or to `new` where it is not there."""

    kind: str
    old: str
    new: str
    text: str

    def lines(self) -> list[str]:
        base = BASE[self.old]
        removed, added = f"-1,{n_lines(base)}", f"+1,{n_lines(self.text)}"
        old, new = quoted(f"a/{self.old}"), quoted(f"b/{self.old}")
        head, made = f"diff --git {old} {new}", quoted(f"b/{self.new}")
        made_head = f"diff --git {quoted(f'a/{self.new}')} {made}"
        both, gone, come = lines_of(base, "-") + lines_of(self.text, "+"), lines_of(base, "-"), lines_of(self.text, "+")
        match self.kind:
            case "change":
                return [head, f"--- {old}", f"+++ {new}", f"@@ {removed} {added} @@", *both]
            case "delete":
                return [head, "deleted file mode 100644", f"--- {old}", "+++ /dev/null", f"@@ {removed} +0,0 @@", *gone]
            case "mode":
                return [head, "old mode 100644", "new mode 100755"]
            case "rename" | "copy":
                kinds = [f"{self.kind} from {quoted(self.old)}", f"{self.kind} to {quoted(self.new)}"]
                return [f"diff --git {old} {made}", "similarity index 100%", *kinds]
            case "binary":
                return [made_head, "new file mode 100644", *_BINARY]
        mode = "120000" if self.kind == "link" else "100644"
        return [made_head, f"new file mode {mode}", "--- /dev/null", f"+++ {made}", f"@@ -0,0 {added} @@", *come]


pieces = st.builds(
    Piece,
    st.sampled_from(["change", "delete", "mode", "rename", "copy", "binary", "new", "link"]),
    st.sampled_from(sorted(BASE)),
    st.sampled_from(NEW),
    st.sampled_from(TEXTS),
)
moves = st.sampled_from(["insert", "replace", "drop"])
strays = st.lists(st.tuples(st.integers(0, 60), moves, st.sampled_from(OUT_OF_PLACE)), max_size=2)


def patch_of(found: list[Piece], misplaced: list[tuple[int, str, str]]) -> str:
    lines = [line for piece in found for line in piece.lines()]
    for number, how, line in misplaced:
        at = number % len(lines)
        lines[at : at + (how != "insert")] = [] if how == "drop" else [line]
        assume(lines)
    return "\n".join(lines) + "\n"


@settings(max_examples=100, deadline=None)
@given(st.lists(pieces, min_size=1, max_size=4), strays)
def test_nothing_protected_is_touched_by_what_is_left_of_any_patch(
    found: list[Piece], misplaced: list[tuple[int, str, str]]
) -> None:
    try:
        kept = restrict(patch_of(found, misplaced), TEST_PATCH, BASE.get)
        event("readable")
    except PatchUnreadable:
        event("refused")
        return
    again = restrict(kept.patch, TEST_PATCH, BASE.get)
    assert (again.patch, again.dropped) == (kept.patch, ())
    assert not [path for change in changes(kept.patch) for path in change.paths if STEERS.search(path)]
    with tempfile.TemporaryDirectory() as name:
        tree = write_tree(Path(name) / "tree", BASE)
        try:
            apply_patch(tree, kept.patch)
            event("applied")
        except ValueError:
            pass
        there = {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()}
        assert {path: (tree / path).read_text() for path in PROTECTED} == {path: BASE[path] for path in PROTECTED}
        assert not [path for path in there - BASE.keys() if STEERS.search(path) or SHADOWS.match(path)]
        assert [path.name for path in Path(name).iterdir()] == ["tree"]


@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_text_is_a_patch_or_is_refused(text: str) -> None:
    for patch in (text, "diff --git " + text, "diff --git a/x b/x\n" + text):
        try:
            kept = restrict(patch, text)
        except PatchUnreadable:
            continue
        assert restrict(kept.patch, text) == type(kept)(kept.patch, ())


def test_every_kind_of_diff_is_one_that_git_applies() -> None:
    for kind in ("change", "delete", "mode", "rename", "copy", "binary", "new", "link"):
        for old in BASE:
            with tempfile.TemporaryDirectory() as name:
                piece = Piece(kind, old, "with space.py", "x = 1")
                apply_patch(write_tree(Path(name), BASE), patch_of([piece], []))
