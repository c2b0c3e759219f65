"""One open namespace sandbox, see protocols.Sandbox. One property: its files are touched from inside alone.

Each command runs in namespaces of its own; what lasts between commands are the sandbox's folders on the host.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swefactory.errors import InfrastructureError
from swefactory.protocols import CHECKOUT_DIR, CommandResult
from swefactory.sandboxes.isolated_commands import last_line, run_isolated
from swefactory.sandboxes.isolation import Isolated, Owner, write_plan

_FILE_TIMEOUT_S = 120


@dataclass(frozen=True)
class NamespaceSandbox:
    """One open sandbox: its folders on the host and what every command of it shares."""

    folder: Path
    wanted: Isolated
    who: Owner
    writable: tuple[Path, ...]

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
        argv = ("/usr/bin/install", "-D", f"--mode={mode:o}", "--", "/dev/stdin", path)
        result = self._run(replace(self.wanted, argv=argv, cwd="/"), _FILE_TIMEOUT_S, content)
        if result.exit_code != 0:
            raise InfrastructureError(f"cannot write {path} in the sandbox: {last_line(result)}")

    def read(self, path: str, max_bytes: int = 64 * 2**20) -> bytes:
        """See Sandbox. Done inside; a pipe or a device is refused before it is opened."""
        show = ("-printf", r"%s\n", "-size", f"-{max_bytes + 1}c", "-exec", "/bin/cat", "{}", ";")
        argv = ("/usr/bin/find", "-L", path, "-maxdepth", "0", "-type", "f", *show)
        limits = replace(self.wanted.limits, output_bytes=2 * max_bytes + 65536)
        result = self._run(replace(self.wanted, argv=argv, cwd="/", limits=limits), _FILE_TIMEOUT_S, b"")
        size, _, content = result.output.partition(b"\n")
        if result.exit_code == 1:
            raise FileNotFoundError(f"{path} is not in the sandbox, or not readable: {last_line(result)}")
        if not size.isdigit():
            raise InfrastructureError(f"cannot read {path} in the sandbox: not a regular file")
        if int(size) > max_bytes or result.truncated:
            raise InfrastructureError(f"{path} has {int(size)} bytes, more than the {max_bytes} that may be read")
        return content

    def shell_argv(self) -> list[str]:
        """See Sandbox. The shell's terminal is one of its own; it ends when the sandbox closes."""
        argv = ("/usr/bin/setsid", "--ctty", "--wait", "/bin/bash", "--norc", "--noprofile", "-i")
        plan = self.folder / f"shell-{secrets.token_hex(4)}.json"
        command = replace(self.wanted, argv=argv, env={"TERM": "xterm"})
        return write_plan(plan, command, self.who, lock=self.folder / "shells.lock")

    def _run(self, command: Isolated, timeout_s: float, stdin: bytes) -> CommandResult:
        return run_isolated(self.folder, command, self.who, timeout_s=timeout_s, watched=self.writable, stdin=stdin)
