"""OpenHands' tools bound to an open sandbox, under their own names, schemas and descriptions.

A trajectory made with them reads like one of stock OpenHands. One property: a tool lives only inside `bound(…)`, and
a conversation that names another token gets none.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openhands.sdk import Tool
from openhands.sdk.tool import ToolAnnotations, ToolExecutor, register_tool
from openhands.tools.file_editor.definition import (
    TOOL_DESCRIPTION,
    FileEditorAction,
    FileEditorObservation,
    FileEditorTool,
)
from openhands.tools.terminal.definition import TerminalTool

from swefactory.agents.openhands_editor import SandboxFileEditorExecutor
from swefactory.agents.openhands_terminal import SandboxTerminalExecutor
from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import CHECKOUT_DIR, Sandbox

if TYPE_CHECKING:
    from openhands.sdk.conversation.state import ConversationState

_WHERE = (
    f"Your current working directory is: {CHECKOUT_DIR}\n"
    "When exploring project structure, start with this directory instead of the root filesystem."
)


class Watched(ToolExecutor[Any, Any]):
    """An executor that remembers a failure of the sandbox: OpenHands would hand it to the model as a tool's error."""

    def __init__(self, executor: ToolExecutor[Any, Any], bound: "BoundTools") -> None:
        self._executor = executor
        self._bound = bound

    def __call__(self, action: Any, conversation: Any = None) -> Any:  # noqa: ANN401 - OpenHands' own signature
        started = time.monotonic()
        try:
            return self._executor(action, conversation)
        except InfrastructureError as error:
            self._bound.failure = self._bound.failure or error
            if conversation is not None:
                conversation.interrupt()
            raise
        finally:
            self._bound.seconds += time.monotonic() - started

    def interrupt(self) -> None:
        self._executor.interrupt()

    def close(self) -> None:
        self._executor.close()


@dataclass
class BoundTools:
    """The tools of one rollout, and the first failure of its sandbox."""

    terminal: ToolExecutor[Any, Any]
    editor: ToolExecutor[Any, Any]
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    failure: InfrastructureError | None = None
    seconds: float = 0.0  # spent in tools

    def specs(self, names: Sequence[str]) -> list[Tool]:
        """What an Agent is given of `terminal` and `file_editor`."""
        return [Tool(name=f"sandbox_{name}", params={"token": self.token}) for name in names]

    def interrupt(self) -> None:
        """From another thread: lets go of a running command."""
        self.terminal.interrupt()


_BOUND: dict[str, BoundTools] = {}  # Tool parameters must be JSON, so a sandbox is handed over by its token


@contextmanager
def bound(sandbox: Sandbox, command_timeout_s: float) -> Iterator[BoundTools]:
    """The tools act on `sandbox` until the context ends; then shell and mirror are gone."""
    tools = BoundTools(SandboxTerminalExecutor(sandbox, command_timeout_s), SandboxFileEditorExecutor(sandbox))
    _BOUND[tools.token] = tools
    try:
        yield tools
    finally:
        del _BOUND[tools.token]
        tools.terminal.close()
        tools.editor.close()


class SandboxTerminalTool(TerminalTool):
    """Registered as sandbox_terminal; makes the stock `terminal` tool with our executor."""

    @classmethod
    def create(cls, conv_state: "ConversationState", token: str = "", **_: object) -> Sequence[TerminalTool]:  # type: ignore[override]
        tools = _BOUND[token]
        return TerminalTool.create(conv_state, executor=Watched(tools.terminal, tools))


class SandboxFileEditorTool(FileEditorTool):
    """Registered as sandbox_file_editor; makes the stock `file_editor` tool with our executor."""

    @classmethod
    def create(cls, conv_state: "ConversationState", token: str = "", **_: object) -> Sequence[FileEditorTool]:  # type: ignore[override]
        tools = _BOUND[token]
        return [
            FileEditorTool(
                action_type=FileEditorAction,
                observation_type=FileEditorObservation,
                description=f"{TOOL_DESCRIPTION}\n\n{_WHERE}",
                annotations=ToolAnnotations(
                    title="file_editor", readOnlyHint=False, destructiveHint=True,
                    idempotentHint=False, openWorldHint=False,
                ),
                executor=Watched(tools.editor, tools),
            )
        ]  # fmt: skip


register_tool(SandboxTerminalTool.name, SandboxTerminalTool)
register_tool(SandboxFileEditorTool.name, SandboxFileEditorTool)
