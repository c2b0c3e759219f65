"""Answers of uv's resolver. One property: only what another day would answer alike is kept.

FOLDER/HEX.json    HEX over uv's version, its arguments and input files, the Python, and the settings of the index

That is a resolution bound to a moment that has passed, and what is said of exact pins alone: a lock's name stays the
same when somebody uploads a wheel years later. A failure is kept when the index has answered and has no solution.
"""

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from swefactory.sandbox_protocols import CommandResult, UvRun
from swefactory.sandboxes.build_faults import is_network_fault
from swefactory.sandboxes.index_settings import network_settings

_BOUND, _PINS_ALONE = "--exclude-newer", "--no-deps"
_REFUSED = re.compile(r"40[137]|[Cc]redentials|[Uu]nauthorized|[Ff]orbidden")
_UNSURE = ("UV_FIND_LINKS", "UV_OFFLINE")  # their answers depend on what lies on this machine today


@dataclass(frozen=True)
class KeptAnswers:
    """Those below `folder`."""

    folder: Path

    def ask(self, arguments: Sequence[str], files: Mapping[str, str], python: str, run: Callable[[], UvRun]) -> UvRun:
        """What `run` answered to the same before, else what it answers now. `python` says which one exactly."""
        env = network_settings(with_secrets=False).env
        if not _lasts(arguments) or any(name in env for name in _UNSURE):
            return run()
        asked = [version("uv"), list(arguments), dict(files), python, dict(env)]
        path = self.folder / f"{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()}.json"
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
        answer = run()
        if _is_said_for_good(answer):
            self._write(path, answer)
        return answer

    def n_bytes(self) -> int:
        """What they take on the disk."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.glob("*.json"))

    def drop(self) -> int:
        """Removes them all; the bytes that went."""
        n_bytes = self.n_bytes()
        for path in self.folder.glob("*.json"):
            path.unlink(missing_ok=True)
        return n_bytes

    def _write(self, path: Path, answer: UvRun) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(6)}.part")
        written = None if answer.written is None else answer.written.decode()
        said = {"exit_code": answer.result.exit_code, "output": answer.result.output.decode(errors="replace")}
        part.write_text(json.dumps({**said, "written": written, "built": answer.built}))
        part.rename(path)


def _lasts(arguments: Sequence[str]) -> bool:
    if _PINS_ALONE in arguments:
        return True
    bound = arguments[arguments.index(_BOUND) + 1] if _BOUND in arguments else ""
    return bool(bound) and datetime.fromisoformat(bound) < datetime.now(UTC)


def _is_said_for_good(answer: UvRun) -> bool:
    if answer.result.exit_code == 0:
        return answer.written is not None and _is_text(answer.written)
    said = answer.result.output.decode(errors="replace")
    return "No solution found" in said and not is_network_fault(said) and not _REFUSED.search(said)


def _is_text(written: bytes) -> bool:
    try:
        written.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read(path: Path) -> UvRun:
    kept = json.loads(path.read_text())
    result = CommandResult(kept["exit_code"], kept["output"].encode(), 0.0)
    return UvRun(result, None if kept["written"] is None else kept["written"].encode(), kept["built"])
