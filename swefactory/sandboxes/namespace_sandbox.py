"""One open namespace sandbox, see sandbox_protocols.Sandbox. One property: its files are touched from inside alone.

Each command runs in namespaces of its own; what lasts between commands are the sandbox's folders on the host.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swefactory.sandbox_protocols import CHECKOUT_DIR, CommandResult
from swefactory.sandboxes.files_inside import (
    TIMEOUT_S,
    check_written,
    content_of,
    output_bytes,
    read_argv,
    write_argv,
)
from swefactory.sandboxes.isolated_commands import run_isolated
from swefactory.sandboxes.isolation import Isolated, Owner, write_plan
from swefactory.sandboxes.shell_guards import ShellGuard


@dataclass(frozen=True)
class NamespaceSandbox:
    """One open sandbox: its folders on the host and what every command of it shares."""

    folder: Path
    wanted: Isolated
    who: Owner
    writable: tuple[Path, ...]
    guard: ShellGuard

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: str = CHECKOUT_DIR,
        stdin: bytes = b"",
    ) -> CommandResult:
        """See Sandbox."""
        command = replace(self.wanted, argv=tuple(argv), env=dict(env or {}), cwd=cwd)
        return self._run(command, timeout_s, stdin)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """See Sandbox. Done inside, as the sandbox's user: a link there leads nowhere here."""
        command = replace(self.wanted, argv=write_argv(path, mode), cwd="/")
        check_written(path, self._run(command, TIMEOUT_S, content))

    def read(self, path: str, max_bytes: int = 64 * 2**20) -> bytes:
        """See Sandbox. Done inside; a pipe or a device is refused before it is opened."""
        limits = replace(self.wanted.limits, output_bytes=output_bytes(max_bytes))
        command = replace(self.wanted, argv=read_argv(path, max_bytes), cwd="/", limits=limits)
        return content_of(path, max_bytes, self._run(command, TIMEOUT_S, b""))

    def shell_argv(self) -> list[str]:
        """See Sandbox. The shell's terminal is one of its own; it ends when the sandbox closes."""
        self.guard.admit()
        argv = ("/usr/bin/setsid", "--ctty", "--wait", "/bin/bash", "--norc", "--noprofile", "-i")
        plan = self.folder / f"shell-{secrets.token_hex(4)}.json"
        command = replace(self.wanted, argv=argv, env={"TERM": "xterm"})
        return write_plan(plan, command, self.who, lock=self.folder / "shells.lock")

    def violation(self) -> str | None:
        """See Sandbox. Processes are counted where there is a control group."""
        limits, group = self.wanted.limits, self.wanted.group
        if group is not None and group.n_tasks() >= limits.n_processes:
            return f"its processes fill the sandbox's limit of {limits.n_processes}"
        return self.guard.violation()

    def _run(self, command: Isolated, timeout_s: float, stdin: bytes) -> CommandResult:
        return run_isolated(self.folder, command, self.who, timeout_s=timeout_s, watched=self.writable, stdin=stdin)
