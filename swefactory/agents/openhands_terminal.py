"""OpenHands' `terminal` tool acting inside a sandbox: its own session logic over a shell on a pseudoterminal.

One property: nothing a model sends through it runs outside the sandbox, and no command holds it longer than its cap.
The stock backends are not used because they lose the first answer of a slow shell, eat TABs, keep escape codes, and
restart on the host when the model asks for a reset.

    typed                   one-line commands, input to a running program, keys
    /opt/results/.command   longer commands: a terminal would lose bytes of them on the way
"""

import contextlib
import os
import re
import threading
import time
from typing import cast

from openhands.sdk.llm import TextContent
from openhands.sdk.tool import ToolExecutor
from openhands.tools.terminal.constants import CMD_OUTPUT_PS1_BEGIN, CMD_OUTPUT_PS1_END
from openhands.tools.terminal.definition import TerminalAction, TerminalObservation, looks_like_python_literal_argument
from openhands.tools.terminal.metadata import CmdOutputMetadata
from openhands.tools.terminal.terminal.interface import TerminalInterface, parse_ctrl_key
from openhands.tools.terminal.terminal.terminal_session import TerminalSession

from swefactory.agents.openhands_pty import PtyProcess, Screen
from swefactory.agents.prompts import prompt_text
from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import CHECKOUT_DIR, RESULTS_DIR, Sandbox

_SET_UP_PATH = f"{RESULTS_DIR}/.shell"
_COMMAND_PATH = f"{RESULTS_DIR}/.command"
_TYPED_BYTES = 1000
_START_TIMEOUT_S = 60.0
_PROMPT_BEGIN, _PROMPT_END = CMD_OUTPUT_PS1_BEGIN.strip(), CMD_OUTPUT_PS1_END.strip()
_RESET_TEXT = "Terminal session has been reset. All previous environment variables and session state have been cleared."
_LITERAL_TEXT = (
    "[Tool-argument error] The `command` argument looks like a Python/JSON {kind}, not a shell command. "
    "Write a script with `file_editor` and run it, or use a heredoc."
)
_MARKER = re.compile(r"__OH_COMMAND_FINISHED_[0-9a-f]{32}_")
_KEYS = {
    "ENTER": b"\n", "TAB": b"\t", "BS": b"\x7f", "ESC": b"\x1b", "UP": b"\x1b[A", "DOWN": b"\x1b[B",
    "RIGHT": b"\x1b[C", "LEFT": b"\x1b[D", "HOME": b"\x1b[H", "END": b"\x1b[F", "PGUP": b"\x1b[5~", "PGDN": b"\x1b[6~",
}  # fmt: skip
# Of the host's environment only what starting the sandbox's own program may need; the shell inside gets its own.
_HOST_ENV = ("PATH", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR")


class ShellStopped(Exception):
    """The rollout is over; whatever still waits for the shell must let go."""


class SandboxTerminal(TerminalInterface):
    """A persistent bash inside the sandbox, started anew when it exits."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(CHECKOUT_DIR)
        self._sandbox = sandbox
        self._env = {name: os.environ[name] for name in _HOST_ENV if name in os.environ} | {"TERM": "xterm"}
        self._screen = Screen()
        self._process: PtyProcess | None = None
        self._command: str | None = None
        self._marker = ""
        self._n_prompts_before = 0
        self._stopped = threading.Event()

    def initialize(self) -> None:
        """Starts the shell. Raises InfrastructureError when it does not come up."""
        prompt = CmdOutputMetadata.to_ps1_prompt()
        self._sandbox.write(_SET_UP_PATH, prompt_text("shell.sh").replace("@PROMPT@", prompt).encode())
        self._process, self._screen = self._start(exit_code=0)
        self._initialized = True

    def expect(self, command: str | None) -> None:
        """The next text sent is this command, as the model wrote it; None: it is input to a running program."""
        self._command, self._marker = command, ""

    def send_keys(self, text: str, enter: bool = True) -> None:
        """Types a command, a key's name, a control sequence, or a line of input."""
        name = text.strip().upper()
        command, self._command = self._command, None
        if command is not None:
            self._n_prompts_before = len(CmdOutputMetadata.matches_ps1_metadata(self._screen.text()))
            self._send_command(command)
        elif marker := _MARKER.search(text):
            self._marker = f"{marker.group()}0__"
        elif name in _KEYS:
            self._type(_KEYS[name])
        elif control := parse_ctrl_key(text):
            self._type(bytes([ord(control[-1].upper()) & 0x1F]))
        else:
            self._send_line(text, text.encode("utf-8", "surrogateescape"))

    def read_screen(self) -> str:
        """The screen since the last clear. A shell that has exited is replaced first, so that a prompt appears."""
        if self._stopped.is_set():
            raise ShellStopped("the rollout was stopped")
        if self._process is not None and self._process.ended.is_set():
            exit_code = self._process.close()
            note = f"\n[The shell exited with code {exit_code}; a new one was started in {CHECKOUT_DIR}.]\n"
            earlier = self._screen.raw() + note.encode()
            self._process, self._screen = self._start(exit_code % 256)
            self._screen.put_before(earlier)
        return self._with_marker(self._screen.text())

    def _with_marker(self, text: str) -> str:
        """OpenHands types a line after some heredocs that prints a mark for their end, and waits for it. A command is
        evaluated whole here and ends with the next prompt, so the mark is put there: typed, it would come late and be
        taken for the next command's output. The exit code OpenHands reports is the prompt's."""
        if not self._marker or len(CmdOutputMetadata.matches_ps1_metadata(text)) <= self._n_prompts_before:
            return text
        end = text.rfind(_PROMPT_BEGIN)
        return f"{text[:end]}{self._marker}\n{text[end:]}"

    def clear_screen(self) -> None:
        """Forgets everything before the last prompt."""
        self._screen.keep_from(_PROMPT_BEGIN.encode())

    def interrupt(self) -> bool:
        """C-c."""
        with contextlib.suppress(OSError):
            self._type(b"\x03")
            return True
        return False

    def is_running(self) -> bool:
        """Whether something runs: the screen does not end with a prompt."""
        return not self._screen.text().rstrip().endswith(_PROMPT_END)

    def stop(self) -> None:
        """From another thread: whoever waits for the shell gets ShellStopped at once."""
        self._stopped.set()

    def close(self) -> None:
        """Ends the shell and what runs in its foreground."""
        process, self._process = self._process, None
        if process is not None:
            process.close()
        self._closed = True

    def _send_command(self, command: str) -> None:
        content = command.encode("utf-8", "surrogateescape")
        if len(content) > _TYPED_BYTES or any(byte < 32 or byte == 127 for byte in content):
            self._sandbox.write(_COMMAND_PATH, content + b"\n")
            content = f'eval "$(<{_COMMAND_PATH})"'.encode()
        self._send_line(command, content)

    def _send_line(self, echo: str, typed: bytes) -> None:
        """Types a line. The terminal echoes nothing, so the echo that OpenHands removes from the front of the output
        is put there: without one it would remove the output of a command that begins like the command."""
        self._screen.add(echo.encode("utf-8", "surrogateescape") + b"\n")
        self._type(typed + b"\n")

    def _type(self, data: bytes) -> None:
        if self._process is None:
            raise RuntimeError("the terminal is not initialized")
        self._process.write(data)

    def _start(self, exit_code: int) -> tuple[PtyProcess, Screen]:
        """A new shell and its screen, which begins with its first prompt; `exit_code` is what that prompt reports.
        Waiting for it keeps a slow start-up file from being taken for a command's answer."""
        screen = Screen()
        process = PtyProcess(self._sandbox.shell_argv(), self._env, screen)
        try:
            process.write(f" . {_SET_UP_PATH}; (exit {exit_code})\n".encode())
            until = time.monotonic() + _START_TIMEOUT_S
            while not CmdOutputMetadata.matches_ps1_metadata(screen.text()):
                if self._stopped.is_set():
                    raise ShellStopped("the rollout was stopped")
                if process.ended.is_set() or time.monotonic() > until:
                    said = screen.text()[-500:].strip() or "nothing"
                    raise InfrastructureError(f"no shell could be started in the sandbox; it said: {said}")
                time.sleep(0.02)
        except BaseException:
            process.close()
            raise
        screen.keep_from(_PROMPT_BEGIN.encode())
        return process, screen


class _Capped:
    """A TerminalAction whose time limit appears when the cap is reached: a command for which the model set none
    keeps OpenHands' soft limit (no new output for 30 s) and still ends."""

    def __init__(self, action: TerminalAction, cap_s: float) -> None:
        self.command = action.command
        self.is_input = action.is_input
        self._asked_s = action.timeout
        self._cap_s = cap_s
        self._started = time.monotonic()

    @property
    def timeout(self) -> float | None:
        if self._asked_s is not None:
            return min(self._asked_s, self._cap_s)
        return self._cap_s if time.monotonic() - self._started >= self._cap_s else None


class SandboxTerminalExecutor(ToolExecutor[TerminalAction, TerminalObservation]):
    """Runs the actions of one conversation, one at a time, in one shell."""

    def __init__(self, sandbox: Sandbox, command_timeout_s: float, no_change_timeout_s: int | None = None) -> None:
        self._sandbox = sandbox
        self._cap_s = command_timeout_s
        self._no_change_timeout_s = no_change_timeout_s
        self._terminal: SandboxTerminal | None = None
        self._session: TerminalSession | None = None
        self._stopped = False

    def __call__(self, action: TerminalAction, conversation: object = None) -> TerminalObservation:
        """Raises ValueError for a senseless action, which goes to the model; InfrastructureError; ShellStopped."""
        if action.reset and action.is_input:
            raise ValueError("Cannot use reset=True with is_input=True")
        if not action.is_input and (kind := looks_like_python_literal_argument(action.command)):
            text = _LITERAL_TEXT.format(kind=kind)
            return TerminalObservation.from_text(text, is_error=True, command=action.command)
        if action.reset:
            return self._reset(action)
        return self._execute(action)

    def interrupt(self) -> None:
        """From another thread, at the end of the rollout's time: lets go of the running command."""
        self._stopped = True
        if self._terminal is not None:
            self._terminal.stop()

    def close(self) -> None:
        """Ends the shell."""
        if self._session is not None:
            self._session.close()
        self._session = self._terminal = None

    def _reset(self, action: TerminalAction) -> TerminalObservation:
        self.close()
        self._opened()
        if not action.command.strip():
            return TerminalObservation.from_text(_RESET_TEXT, command="[RESET]", exit_code=0)
        ran = self._execute(action)
        text = TextContent(text=f"{_RESET_TEXT}\n\n{ran.text}")
        return ran.model_copy(update={"content": [text], "command": f"[RESET] {action.command}"})

    def _execute(self, action: TerminalAction) -> TerminalObservation:
        terminal, session = self._opened()
        terminal.expect(None if action.is_input else action.command.strip())
        try:
            return session.execute(cast(TerminalAction, _Capped(action, self._cap_s)))
        except TimeoutError as error:
            return TerminalObservation.from_text(
                f"{error}; use reset=true to start a new shell", command=action.command, is_error=True
            )

    def _opened(self) -> tuple[SandboxTerminal, TerminalSession]:
        if self._stopped:
            raise ShellStopped("the rollout was stopped")
        if self._terminal is None or self._session is None:
            terminal = SandboxTerminal(self._sandbox)
            session = TerminalSession(terminal, self._no_change_timeout_s)
            self._terminal, self._session = terminal, session
            session.initialize()
        return self._terminal, self._session
