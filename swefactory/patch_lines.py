"""The lines that a git diff adds, removes and keeps. One property: its hunk's counts say what a line is, not its look.

    @@ -10,3 +10,4 @@     3 old and 4 new lines follow: "--- old" among them is content and no header

Pure. Binary sections, modes and renames have no lines. What is no hunk is passed over: judging a patch whole is the
business of `patches`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


@dataclass(frozen=True)
class PatchLine:
    """`sign` is "+", "-" or " ". `path` is the new path, or the old one of a deleted file, as git writes it."""

    path: str
    sign: str
    text: str


def patch_lines(patch: str) -> Iterator[PatchLine]:
    """All lines of all hunks, in their order."""
    path, n_old, n_new = "", 0, 0
    for line in patch.split("\n"):
        if n_old > 0 or n_new > 0:
            sign = line[:1] or " "  # some tools cut the blank off an empty line of context
            if sign == "\\":  # "\ No newline at end of file"
                continue
            n_old -= sign != "+"
            n_new -= sign != "-"
            yield PatchLine(path, sign if sign in "+-" else " ", line[1:])
        elif hunk := _HUNK.match(line):
            n_old, n_new = (1 if count is None else int(count) for count in hunk.groups())
        elif line.startswith("--- ") or (line.startswith("+++ ") and line[4:] != "/dev/null"):
            path = line[4:].removesuffix("\t")[2:]
