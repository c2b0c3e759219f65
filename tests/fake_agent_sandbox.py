"""A Sandbox of bubblewrap alone, for tests of agents: no environment to build, the host's programs read-only.

It keeps the Protocol whole, and its run() and shell share /testbed, /opt/results and /tmp.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import CHECKOUT_DIR, INPUTS_DIR, RESULTS_DIR, CommandResult

_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}


class BubblewrapSandbox:
    """`root` holds what is writable inside. `shell_start` is typed before bash takes commands, to make it slow."""

    def __init__(self, root: Path, *, inputs: Path | None = None, shell_start: str = "") -> None:
        if shutil.which("bwrap") is None:
            pytest.skip("bwrap is absent")
        self.checkout, self._results, self._tmp = root / "testbed", root / "results", root / "tmp"
        self._rc = root / "rc"
        for folder in (self.checkout, self._results, self._tmp):
            folder.mkdir(parents=True, exist_ok=True)
        self._rc.write_text(shell_start)
        self._inputs = inputs or root / "inputs"
        self._inputs.mkdir(exist_ok=True)
        self.commands: list[Sequence[str]] = []
        self.is_broken = False
        self.broken_limit: str | None = None

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: str = CHECKOUT_DIR,
        stdin: bytes = b"",
    ) -> CommandResult:
        if self.is_broken:
            raise InfrastructureError("the sandbox is gone")
        self.commands.append(argv)
        started = time.monotonic()
        extra = [word for name, value in (env or {}).items() for word in ("--setenv", name, value)]
        ran = subprocess.run(
            [*self._prefix(cwd), *extra, *argv], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        return CommandResult(ran.returncode, ran.stdout, time.monotonic() - started)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._must(["mkdir", "-p", os.path.dirname(path)])
        self._must(["dd", f"of={path}", "status=none"], content)
        self._must(["chmod", f"{mode:o}", path])

    def read(self, path: str, max_bytes: int = 64 * 2**20) -> bytes:
        if self.run(["test", "-f", path], timeout_s=60).exit_code:
            raise FileNotFoundError(path)
        return self._must(["cat", path])

    def shell_argv(self) -> list[str]:
        return [*self._prefix(CHECKOUT_DIR), "setsid", "--ctty", "--wait", "bash", "--rcfile", "/opt/rc", "-i"]

    def violation(self) -> str | None:
        return self.broken_limit

    def _must(self, argv: Sequence[str], stdin: bytes = b"") -> bytes:
        result = self.run(argv, timeout_s=60, cwd="/", stdin=stdin)
        if result.exit_code:
            raise InfrastructureError(f"{argv[0]}: {result.output.decode(errors='replace').strip()}")
        return result.output

    def _prefix(self, cwd: str) -> list[str]:
        program = ["bwrap", "--die-with-parent", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--clearenv"]
        for name, value in _ENV.items():
            program += ["--setenv", name, value]
        for folder in ("/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc"):
            program += ["--ro-bind-try", folder, folder]
        binds = {CHECKOUT_DIR: self.checkout, RESULTS_DIR: self._results, "/tmp": self._tmp}
        program += ["--dev", "/dev", "--proc", "/proc"]
        for inside, outside in binds.items():
            program += ["--bind", str(outside), inside]
        return [
            *program, "--ro-bind", str(self._inputs), INPUTS_DIR, "--ro-bind", str(self._rc), "/opt/rc", "--chdir", cwd,
        ]  # fmt: skip
