"""Checkpoints of a sandbox between two steps, so that a rollout whose worker died goes on in a fresh one.

    rest ─► the tree's diff, /tmp and HOME as a tar ─► journal ─► restore: both put back ─► the same diff again, or not

One property: what was restored is what was kept, the tree's diff taken anew says so; else the rollout begins anew. Not
kept, and so gone: the shell's variables and processes, files that git ignores. A tree whose refs an agent has changed
(commits, stashes) is not kept at all: the diff would not tell.
"""

import secrets
import time
from collections.abc import Sequence

from swefactory.errors import InfrastructureError
from swefactory.journals import Checkpoint, Past, RolloutJournal, Step, StopOrder
from swefactory.sandbox_protocols import RESULTS_DIR, CommandResult, Sandbox
from swefactory.tree_diffs import take

_TIMEOUT_S = 120
_MAX_FILES_BYTES = 4 * 2**20
_FOLDERS = ("/tmp", "/home/sandbox")  # noqa: S108 - inside the sandbox


class Checkpointing:
    """The journal as an agent has it: keeps a checkpoint when the agent rests. No more than `share` of the time goes
    into that; 1 is no bound."""

    def __init__(self, journal: RolloutJournal, sandbox: Sandbox, tree_id: str, share: float) -> None:
        self._journal, self._sandbox, self._tree_id, self._share = journal, sandbox, tree_id, share
        self._not_before = 0.0
        self._refs = _refs(sandbox) if journal.is_kept else b""

    @property
    def past(self) -> Past:
        return self._journal.past

    def event(self, number: int, body: str) -> None:
        self._journal.event(number, body)

    def step(self, step: Step) -> StopOrder | None:
        return self._journal.step(step)

    def rest(self, n_steps: int, n_events: int) -> None:
        """Keeps a checkpoint, unless the last one was dear and is young. A sandbox that fails meanwhile fails for the
        agent, too, and there it is told."""
        started = time.monotonic()
        if not self._journal.is_kept or started < self._not_before:
            return
        try:
            checkpoint = self._taken(n_steps, n_events)
        except InfrastructureError:
            return
        if checkpoint:
            self._journal.keep(checkpoint)
        took_s = time.monotonic() - started
        self._not_before = time.monotonic() + took_s * (1 / self._share - 1)

    def _taken(self, n_steps: int, n_events: int) -> Checkpoint | None:
        if _refs(self._sandbox) != self._refs:
            return None
        diff = take(self._sandbox, self._tree_id)
        files = _packed(self._sandbox)
        return None if diff.note or files is None else Checkpoint(n_steps, n_events, diff.text, files)


def restore(sandbox: Sandbox, tree_id: str, point: Checkpoint) -> str:
    """Puts a checkpoint into a fresh sandbox; empty, or why it is not what it was."""
    if point.patch and (said := _put(sandbox, point.patch.encode(), ["git", "apply", "--whitespace=nowarn"])):
        return f"the diff of its tree does not apply: {said}"
    if point.files and (said := _put(sandbox, point.files, ["tar", "-xzf"], ["-C", "/"])):
        return f"its files outside the tree cannot be put back: {said}"
    return "" if take(sandbox, tree_id).text == point.patch else "the tree is not what it was when it was put back"


def _put(sandbox: Sandbox, content: bytes, command: Sequence[str], options: Sequence[str] = ()) -> str:
    path = f"{RESULTS_DIR}/restored-{secrets.token_hex(8)}"
    sandbox.write(path, content)
    ran = sandbox.run([*command, path, *options], timeout_s=_TIMEOUT_S)
    return "" if ran.exit_code == 0 else ran.output.decode(errors="replace").strip()[-300:] or "it failed"


def _refs(sandbox: Sandbox) -> bytes:
    """HEAD and every ref, stashes among them."""
    ran = [_git(sandbox, "rev-parse", "HEAD"), _git(sandbox, "for-each-ref")]
    return b"\n".join(each.output for each in ran)


def _git(sandbox: Sandbox, *arguments: str) -> CommandResult:
    return sandbox.run(["git", *arguments], timeout_s=_TIMEOUT_S)


def _packed(sandbox: Sandbox) -> bytes | None:
    """What lies outside the tree; empty for nothing, None for too much."""
    folders = [folder for folder in _FOLDERS if _holds_something(sandbox, folder)]
    if not folders:
        return b""
    path = f"{RESULTS_DIR}/kept-{secrets.token_hex(8)}"
    names = [folder.lstrip("/") for folder in folders]
    ran = sandbox.run(["tar", "-czf", path, "-C", "/", *names], timeout_s=_TIMEOUT_S, cwd="/")
    if ran.exit_code != 0:
        return None
    try:
        return sandbox.read(path, _MAX_FILES_BYTES)
    except (FileNotFoundError, InfrastructureError):
        return None
    finally:
        sandbox.run(["rm", "-f", path], timeout_s=_TIMEOUT_S, cwd="/")


def _holds_something(sandbox: Sandbox, folder: str) -> bool:
    found = sandbox.run(["find", folder, "-mindepth", "1", "-print", "-quit"], timeout_s=_TIMEOUT_S, cwd="/")
    return found.exit_code == 0 and bool(found.output.strip())
