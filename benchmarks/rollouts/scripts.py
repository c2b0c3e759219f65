"""What a scripted model says on a task instance, as calls of OpenHands' own tools.

    editor      the gold patch, hunk by hunk: `file_editor` with str_replace and create
    heredoc     the gold patch, file by file: `terminal` with `git apply <<'…'`
    comment     a comment at the end of a file that the fix would change      (solves nothing)
    breaks      a line that raises, at the start of such a file               (solves nothing)
    gives_up    looks around and finishes                                     (solves nothing)

Each looks around first and at its change afterwards. One property: a script that solves says the gold patch and
nothing else, so that it resolves exactly where the patch survives the way through the tools.
"""

import enum
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from db.enums import ExitStatus
from swefactory.checkouts import apply_patch
from swefactory.demo.model_server import Call
from swefactory.patches import FileChange, file_changes
from swefactory.sandbox_protocols import CHECKOUT_DIR

_MAX_EDITS = 60  # more calls would meet the limit of turns
_HERE = "THE_END_OF_THE_PATCH"
_CHECK: Call = ("What have I changed?", "terminal", {"command": "git status --short; git diff --stat | cat"})


class Kind(enum.StrEnum):
    EDITOR = "editor"
    HEREDOC = "heredoc"
    COMMENT = "comment"
    BREAKS = "breaks"
    GIVES_UP = "gives_up"


SOLVING = (Kind.EDITOR, Kind.HEREDOC)
FAILING = (Kind.COMMENT, Kind.BREAKS, Kind.GIVES_UP)


@dataclass(frozen=True)
class Script:
    """What the model says, in order, and what must become of the rollout."""

    kind: Kind
    calls: tuple[Call, ...]

    @property
    def solves(self) -> bool:
        return self.kind in SOLVING

    @property
    def exit_status(self) -> ExitStatus:
        return ExitStatus.EMPTY_PATCH if self.kind is Kind.GIVES_UP else ExitStatus.SUBMITTED


def write_script(kind: Kind, patch: str, base: Path, scratch: Path) -> Script:
    """`base` is the base commit's tree, only read; `scratch` an empty folder for the files that the patch changes.
    Too many edits for the limit of turns become heredocs, and the script says so by its kind."""
    changes = file_changes(patch)
    target = _target(changes, base)
    match kind:
        case Kind.EDITOR:
            work = _edited(changes, patch, base, scratch)
            if len(work) > _MAX_EDITS:
                kind, work = Kind.HEREDOC, [_applied(change) for change in changes]
        case Kind.HEREDOC:
            work = [_applied(change) for change in changes]
        case Kind.COMMENT:
            command = f"printf '\\n# Looked at, and left as it is.\\n' >> {_quoted(target)}"
            work = [("I only leave a note.", "terminal", {"command": command})]
        case Kind.BREAKS:
            line = 'raise RuntimeError("not finished")'
            work = [("This goes first.", "file_editor", _editing(target, "insert", insert_line=0, new_str=line))]
        case Kind.GIVES_UP:
            work = []
    looks = ("Let me look around.", "terminal", {"command": f"git log --oneline; ls; wc -l {_quoted(target)}"})
    reads = ("And at the code.", "file_editor", _editing(target, "view"))
    ends = ("", "finish", {"message": "I cannot resolve it." if kind is Kind.GIVES_UP else "Done."})
    return Script(kind, (looks, reads, *work, _CHECK, ends))


def replacements(old: str, new: str) -> Iterator[tuple[str, str]]:
    """Pairs that turn `old` into `new`, one after the other; each finds its place, as its old text is there once."""
    lines, wanted = old.splitlines(keepends=True), new.splitlines(keepends=True)
    for tag, i1, i2, j1, j2 in reversed(SequenceMatcher(None, lines, wanted, autojunk=False).get_opcodes()):
        if tag == "equal":
            continue
        text = "".join(lines)
        for n_around in range(1, len(lines) + 1):
            start, end = max(0, i1 - n_around), i2 + n_around
            found = "".join(lines[start:end])
            if text.find(found) == text.rfind(found):  # count() would not see occurrences that overlap
                break
        yield found, "".join((*lines[start:i1], *wanted[j1:j2], *lines[i2:end]))
        lines[i1:i2] = wanted[j1:j2]


def _target(changes: Sequence[FileChange], base: Path) -> str:
    """A file that the fix changes, a Python file before others; a new one where it changes none."""
    there = [change.old_path for change in changes if change.old_path and (base / change.old_path).is_file()]
    return next((path for path in there if path.endswith(".py")), there[0] if there else "notes.py")


def _edited(changes: Sequence[FileChange], patch: str, base: Path, scratch: Path) -> list[Call]:
    for change in changes:
        if change.old_path and (base / change.old_path).is_file():
            (scratch / change.old_path).parent.mkdir(parents=True, exist_ok=True)
            (scratch / change.old_path).write_bytes((base / change.old_path).read_bytes())
    apply_patch(scratch, patch)
    return [call for change in changes for call in _edits(change, base, scratch)]


def _edits(change: FileChange, base: Path, scratch: Path) -> Iterator[Call]:
    """One file by the editor; what the editor cannot do (renames, deletions, modes, binary files, line ends) by git."""
    path = change.new_path
    old = _text(base / change.old_path) if change.old_path else None
    new = _text(scratch / path) if path else None
    if path and new and change.old_path is None and "\nnew file mode 100644\n" in change.text:
        yield f"A new file, {path}.", "file_editor", _editing(path, "create", file_text=new)
    elif path and old and new is not None and path == change.old_path and "\nnew mode " not in change.text:
        for found, replaced in replacements(old, new):
            yield f"A change in {path}.", "file_editor", _editing(path, "str_replace", old_str=found, new_str=replaced)
    else:
        yield _applied(change)


def _text(path: Path) -> str | None:
    """None for what an editor of text may not keep byte by byte."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return None
    return None if "\r" in text or path.is_symlink() else text


def _applied(change: FileChange) -> Call:
    return f"A change of {change.path}.", "terminal", {"command": f"git apply <<'{_HERE}'\n{change.text}{_HERE}"}


def _editing(path: str, command: str, **facts: object) -> dict[str, object]:
    return {"command": command, "path": f"{CHECKOUT_DIR}/{path}", **facts}


def _quoted(path: str) -> str:
    return shlex.quote(f"{CHECKOUT_DIR}/{path}")


# ---------------------------------------------------------------- which conversation is whose

_ISSUE = re.compile(r"<issue>\n(.*)\n</issue>", re.DOTALL)


def statement_of(messages: Sequence[object]) -> str:
    """The problem statement that a conversation begins with; empty without one."""
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            if found := _ISSUE.search("\n".join(str(part.get("text", "")) for part in parts)):
                return found[1].strip()
    return ""
