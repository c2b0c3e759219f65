"""OpenHands' `file_editor` tool acting inside a sandbox: its own editor over a private mirror of one path.

    pull    find in the sandbox says what the path is; a file's bytes, or a folder's names two levels deep, are copied
    edit    OpenHands' FileEditor works on MIRROR/<path>
    push    a file that changed is written back to where its links lead inside the sandbox

One property: on the host only MIRROR is read or written, and it holds no link.
"""

import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openhands.sdk.llm import TextContent
from openhands.sdk.tool import ToolExecutor
from openhands.tools.file_editor.definition import FileEditorAction, FileEditorObservation
from openhands.tools.file_editor.editor import FileEditor
from openhands.tools.file_editor.exceptions import ToolError
from openhands.tools.file_editor.utils.history import FileHistoryManager

from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import CHECKOUT_DIR, Sandbox

_TIMEOUT_S = 60
_MAX_FILE_BYTES = 10 * 2**20  # FileEditor's own bound; a larger file is mirrored by its size alone
_MAX_NAMES = 5000
_MAX_LEVELS = 40


@dataclass(frozen=True)
class _Entry:
    """One path as find describes it: `kind` after following links is f, d, or something else."""

    path: str
    kind: str
    size_bytes: int
    mode: int


class SandboxFileEditorExecutor(ToolExecutor[FileEditorAction, FileEditorObservation]):
    """Runs the actions of one conversation. The undo history lasts as long as the object."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._home = Path(tempfile.mkdtemp(prefix="swefactory-editor-")).resolve()
        self._mirror = self._home / "mirror"
        self._editor = FileEditor(workspace_root=f"{self._mirror}{CHECKOUT_DIR}")
        shutil.rmtree(self._editor._history_manager.cache.directory, ignore_errors=True)  # it is never removed
        self._editor._history_manager = FileHistoryManager(10, self._home / "history")

    def __call__(self, action: FileEditorAction, conversation: object = None) -> FileEditorObservation:
        """Raises InfrastructureError when the sandbox has failed; what the model did wrong is an observation."""
        path = posixpath.normpath(posixpath.join(CHECKOUT_DIR, action.path))
        if "\0" in path or path.count("/") > _MAX_LEVELS:
            return _refused(action, f"{action.path!r} is not a usable path")
        try:
            with self._pulled(path) as before:
                observation = self._edit(action, path if action.path.startswith("/") else "")
                self._push(path, before)
        except ToolError as error:
            return _refused(action, self._hide(error.message))
        except (FileNotFoundError, PermissionError, InfrastructureError) as error:
            self._require_life(error)
            return _refused(action, f"{path}: {error}")
        return self._as_inside(observation)

    def close(self) -> None:
        """Removes the mirror and the history."""
        shutil.rmtree(self._home, ignore_errors=True)

    def _edit(self, action: FileEditorAction, path: str) -> FileEditorObservation:
        facts = action.model_dump(exclude={"kind", "path"})
        return self._editor(**facts, path=f"{self._mirror}{path}" if path else action.path)

    @contextmanager
    def _pulled(self, path: str) -> Iterator[_Entry | None]:
        """The mirror holds `path` while the context is open."""
        entries = self._find(path)
        self._local(path).parent.mkdir(parents=True)
        try:
            for entry in entries:
                self._pull(entry, with_content=len(entries) == 1)
            yield entries[0] if entries else None
        finally:
            shutil.rmtree(self._mirror, ignore_errors=True)

    def _find(self, path: str) -> list[_Entry]:
        """What is at `path`: nothing, a file, or a folder first and then its names, sorted."""
        command = ["find", "-H", path, "-maxdepth", "2", "-printf", r"%Y\t%s\t%m\t%p\0"]
        found = self._sandbox.run(command, timeout_s=_TIMEOUT_S, cwd="/")
        entries = []
        for record in found.output.decode("utf-8", "surrogateescape").split("\0"):
            facts = record.split("\t", 3)
            if len(facts) == 4 and facts[1].isdigit() and (facts[3] == path or facts[3].startswith(f"{path}/")):
                entries.append(_Entry(facts[3], facts[0], int(facts[1]), int(facts[2] or "0", 8)))
        return entries[:1] + sorted(entries[1:_MAX_NAMES], key=lambda entry: entry.path)

    def _pull(self, entry: _Entry, *, with_content: bool) -> None:
        local = self._local(entry.path)
        match entry.kind:
            case "d":
                local.mkdir(exist_ok=True)
            case "f" if with_content and entry.size_bytes <= _MAX_FILE_BYTES:
                local.write_bytes(self._sandbox.read(entry.path, _MAX_FILE_BYTES))
            case "f" if with_content:
                local.touch()
                os.truncate(local, entry.size_bytes)
            case _ if with_content:
                raise ToolError(f"{entry.path} is neither a file nor a folder")
            case _:
                local.touch()

    def _push(self, path: str, before: _Entry | None) -> None:
        local = self._local(path)
        if not local.is_file() or (before is not None and before.size_bytes > _MAX_FILE_BYTES):
            return
        content = local.read_bytes()
        if before is None:
            self._sandbox.write(path, content)
        elif content != self._sandbox.read(path, _MAX_FILE_BYTES):
            self._sandbox.write(self._real_path(path), content, before.mode & 0o777)

    def _real_path(self, path: str) -> str:
        """Where the links of an existing path lead, inside."""
        found = self._sandbox.run(["readlink", "-f", "--", path], timeout_s=_TIMEOUT_S, cwd="/")
        real = found.output.decode("utf-8", "surrogateescape").removesuffix("\n")
        return real if found.exit_code == 0 and real.startswith("/") else path

    def _local(self, path: str) -> Path:
        return Path(f"{self._mirror}{path}")

    def _require_life(self, error: Exception) -> None:
        """Raises InfrastructureError when the sandbox no longer runs anything: then the path was not at fault."""
        if self._sandbox.run(["true"], timeout_s=_TIMEOUT_S, cwd="/").exit_code != 0:
            raise InfrastructureError(f"the sandbox no longer runs commands: {error}") from error

    def _as_inside(self, observation: FileEditorObservation) -> FileEditorObservation:
        """The observation with the mirror's name gone from every text."""
        update: dict[str, Any] = {"path": self._hide(observation.path or "") or None}
        update["content"] = [
            part.model_copy(update={"text": self._hide(part.text)}) if isinstance(part, TextContent) else part
            for part in observation.content
        ]
        return observation.model_copy(update=update)

    def _hide(self, text: str) -> str:
        return text.replace(str(self._mirror), "")


def _refused(action: FileEditorAction, text: str) -> FileEditorObservation:
    return FileEditorObservation.from_text(text=text, command=action.command, is_error=True)
