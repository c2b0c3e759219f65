"""A SandboxBackend without any process: it answers an evaluation's commands from a script and writes a real record.

What it was asked (specifications, commands, trees as they stood) is kept for the test to look at.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swefactory.sandbox_protocols import CommandResult, Sandbox, SandboxSpec
from tests.fake_sandbox import HostBackend

Events = list[dict[str, Any]]
KEY = "k" * 64


def written(events: Sequence[dict[str, Any]], key: str = KEY) -> bytes:
    """The record of these events, as the plugin writes it."""
    last, lines = "", []
    for event in events:
        text = json.dumps(event, sort_keys=True)
        last = hmac.new(key.encode(), (last + text).encode(), hashlib.sha256).hexdigest()
        lines.append(f"{last} {text}\n")
    return "".join(lines).encode()


def sound_run(request: Mapping[str, Any], tests: Mapping[str, str], **start: Any) -> Events:
    """The events of a run of `tests` (id -> outcome of the call) with its canaries; `start` adds to the first event."""
    canary = f"tests/test_{request['canary']}.py"
    found = [(test_id, test_id.split("::")[0], outcome) for test_id, outcome in tests.items()]
    found += [(f"{canary}::c{n}", canary, "failed") for n in range(3)]
    items = [{"event": "item", "n": n, "id": i, "file": file} for n, (i, file, _) in enumerate(found)]
    phases = [
        {"event": "phase", "n": n, "id": i, "when": when, "outcome": outcome if when == "call" else "passed",
         "xfail": False, "s": 0.5, "message": f"why {i}" if when == "call" and outcome != "passed" else ""}
        for n, (i, _, outcome) in enumerate(found) for when in ("setup", "call", "teardown")
    ]  # fmt: skip
    return [
        {"event": "start", "python": "3.12.1", "pytest": "9.0", "plugin": "2", **start},
        {"event": "configured", "rootdir": "/testbed", "ignored": ["--cov"]},
        *items,
        *phases,
        {"event": "end", "exit_code": 1, "n_items": len(items), "n_finished": len(items)},
    ]


@dataclass
class Script:
    """What the sandbox answers; `calls` are its commands, `opened` the specifications with the files they came with."""

    events: Callable[[Mapping[str, Any]], Events] = lambda request: sound_run(request, {})
    ended: CommandResult = field(default_factory=lambda: CommandResult(1, b"=== 1 failed ===\n", 2.5))
    record: bytes | Exception | None = None  # in place of the events
    compiled: CommandResult = field(default_factory=lambda: CommandResult(127, b"", 0.0))  # the shifted clock
    build: CommandResult = field(default_factory=lambda: CommandResult(0, b"", 0.0))
    built: bytes = b""
    calls: list[dict[str, Any]] = field(default_factory=list)
    reads: list[tuple[str, int]] = field(default_factory=list)
    opened: list[tuple[SandboxSpec, dict[str, str]]] = field(default_factory=list)

    @property
    def request(self) -> dict[str, Any]:
        """What the runner was asked."""
        return dict(json.loads(self.calls[-1]["stdin"]))


class _Sandbox:
    def __init__(self, script: Script) -> None:
        self._script = script

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: str = "/testbed",
        stdin: bytes = b"",
    ) -> CommandResult:
        said = {"argv": list(argv), "timeout_s": timeout_s, "env": dict(env or {}), "cwd": cwd, "stdin": stdin}
        self._script.calls.append(said)
        if argv[1] == "cc":
            return self._script.compiled
        return self._script.build if argv[1].endswith("build_extensions.py") else self._script.ended

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        assert path == "/opt/results/build_extensions.py", "only a build writes into its sandbox"

    def read(self, path: str, max_bytes: int = 0) -> bytes:
        self._script.reads.append((path, max_bytes))
        if path.endswith("extensions.tar"):
            return self._script.built
        if isinstance(self._script.record, Exception):
            raise self._script.record
        request = self._script.request
        return (
            written(self._script.events(request), request["key"])
            if self._script.record is None
            else self._script.record
        )

    def shell_argv(self) -> list[str]:
        return []

    def violation(self) -> str | None:
        return None


class ScriptedBackend(HostBackend):
    """Opens the sandbox of one script again and again."""

    def __init__(self, script: Script) -> None:
        super().__init__({})
        self._script = script

    def open(self, spec: SandboxSpec) -> AbstractContextManager[Sandbox]:
        return self._opened(spec)

    @contextmanager
    def _opened(self, spec: SandboxSpec) -> Iterator[Sandbox]:
        self._script.opened.append((spec, {**_files(spec.checkout), **_files(spec.project, "project:")}))
        yield _Sandbox(self._script)


def _files(folder: Path | None, mark: str = "") -> dict[str, str]:
    found = folder.rglob("*") if folder is not None else ()
    return {mark + path.relative_to(folder or path).as_posix(): path.read_text() for path in found if path.is_file()}
