"""What a killed process or a full disk leaves unsaid is no answer, wherever it is asked for."""

import os
import signal
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swefactory.checkouts import Checkouts, apply_patch, run_git
from swefactory.errors import InfrastructureError, Rejected
from swefactory.machine_faults import fault_of
from swefactory.protocols import ProjectLayout, Recipe
from swefactory.recipes.versions import from_tags
from swefactory.sandbox_protocols import CommandResult, EnvironmentSpec
from swefactory.sandboxes import interpreters
from swefactory.sandboxes.build_faults import build_failure
from swefactory.sandboxes.commands import Stop, run_command
from swefactory.sandboxes.extensions import ExtensionBuild, build_extensions
from swefactory.sandboxes.files_inside import content_of
from swefactory.sandboxes.venv_builds import failure
from swefactory.smoke import Complaint, smoke
from tests.test_recipe_lock import recipe

SPEC = EnvironmentSpec("sha256:00", "3.12", "")
KILLED, FAILED = CommandResult(137, b"", 0.1), CommandResult(1, b"E  no such module", 0.1)
FULL = CommandResult(1, b"OSError: [Errno 28] No space left on device\n", 0.1)
PATCH = "--- a/one\n+++ b/one\n@@ -1 +1 @@\n-1\n+2\n"


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (KILLED, "it was killed from outside"),
        (replace(KILLED, out_of_memory=True), ""),
        (replace(KILLED, stopped=True), ""),
        (replace(KILLED, exit_code=None, timed_out=True), ""),
        (FAILED, ""),
        (FULL, "OSError: [Errno 28] No space left on device"),
        (replace(FULL, exit_code=0), ""),
        (CommandResult(1, b"x86_64-linux-gnu-gcc: fatal error: Killed signal terminated program cc1", 0.1),
         "x86_64-linux-gnu-gcc: fatal error: Killed signal terminated program cc1"),
        (CommandResult(1, b"FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp']", 0.1),
         "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp']"),
        (CommandResult(1, b"E   EOFError: marshal data too short", 0.1), "E   EOFError: marshal data too short"),
        (CommandResult(128, b"error: index-pack died of signal 9", 0.1), "error: index-pack died of signal 9"),
    ],
)  # fmt: skip
def test_what_has_answered_and_what_has_not(result: CommandResult, why: str) -> None:
    assert fault_of(result) == why


def test_a_bound_of_ours_is_no_fault_of_the_machine() -> None:
    slow = ["/bin/sleep", "30"]
    stopped = run_command(slow, timeout_s=20, output_bytes=100, watch=lambda: Stop("stopped: too much"))
    assert (stopped.exit_code, stopped.stopped, stopped.was_killed) == (137, True, False)
    assert run_command(["/bin/sh", "-c", "kill -9 $$"], timeout_s=20, output_bytes=100).was_killed


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git that is killed; the mirror and the tree of a repository with one commit and a tag."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "one").write_text("1\n")
    run_git(folder, "init", "--quiet", "--initial-branch=main", "--template=")
    run_git(folder, "add", "one")
    run_git(folder, "commit", "--quiet", "--message", "one")
    run_git(folder, "tag", "v1.0")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return folder


def test_a_killed_git_answers_no_question(deadly: Path, tmp_path: Path) -> None:
    checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
    mirror = deadly / ".git"
    for ask in (
        lambda: apply_patch(deadly, PATCH),
        lambda: checkouts.commit_exists(mirror, "HEAD"),
        lambda: checkouts.parent(mirror, "HEAD"),
        lambda: checkouts.nearest_tag(mirror, "HEAD"),
        lambda: from_tags(mirror, "HEAD"),
    ):
        with pytest.raises(InfrastructureError, match="gave no answer: it was ended by signal 9"):
            ask()


def test_a_patch_that_does_not_apply_still_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("3\n")
    with pytest.raises(ValueError, match="patch does not apply"):
        apply_patch(tmp_path, PATCH)


@pytest.mark.parametrize("make", [failure, build_failure])
def test_a_killed_build_is_no_verdict_and_a_failed_one_is(make: Any) -> None:
    said = CommandResult(1, b"#9 ERROR: /lock/install.sh: error: x", 0.1)
    assert isinstance(make(SPEC, said), Rejected)
    for fault in (KILLED, FULL, CommandResult(1, b"/lock/install.sh: signal: 9 (SIGKILL)", 0.1)):
        assert isinstance(make(SPEC, fault), InfrastructureError)


def test_a_step_of_a_docker_build_that_is_killed_is_no_verdict() -> None:
    said = b"#9 ERROR: executor failed running [/bin/sh -c sh /lock/install.sh wheels]: exit code: 137"
    assert isinstance(build_failure(SPEC, CommandResult(1, said, 0.1)), InfrastructureError)


class Scripted:
    """A sandbox, and the backend that opens it: each command ends with the next of these."""

    name = "scripted"

    def __init__(self, *results: CommandResult) -> None:
        self.results = list(results)

    @contextmanager
    def open(self, _: object) -> Any:
        yield self

    def write(self, *_: object) -> None: ...

    def run(self, argv: Sequence[str], **_: object) -> CommandResult:
        return self.results.pop(0)


def tried(tmp_path: Path, *results: CommandResult) -> Complaint | None:
    """What the smoke test says of a project whose commands end so; all of them must have been run."""
    (tmp_path / "tree" / "x").mkdir(parents=True)
    (tmp_path / "tree" / "x" / "__init__.py").write_text("")
    (tmp_path / "tree" / "test_x.py").write_text("")
    sandbox = Scripted(*results)
    settings = SimpleNamespace(
        sandbox_memory_bytes=1, sandbox_processes=1, sandbox_cpus=1, sandbox_disk_bytes=1, log_cap_bytes=1
    )
    checkouts = Checkouts(tmp_path / "mirrors", tmp_path / "cache")
    services: Any = SimpleNamespace(settings=settings, checkouts=checkouts, sandboxes=sandbox, label="")
    asked: Recipe = replace(recipe("a"), layout=ProjectLayout("x", "1"))
    tree = tmp_path / "tree"
    found = smoke(services, SPEC, asked, (tree, tree), ("test_x.py",)).complaint
    assert sandbox.results == []
    return found


DONE = CommandResult(0, b"", 0.1)


def test_a_step_of_the_smoke_test_that_is_killed_is_run_again(tmp_path: Path) -> None:
    assert tried(tmp_path, KILLED, DONE, KILLED, KILLED, DONE) is None


def test_a_step_that_always_kills_itself_is_a_complaint(tmp_path: Path) -> None:
    found = tried(tmp_path, KILLED, KILLED, KILLED)
    assert found is not None
    assert (found.step, "137" in found.how) == ("import", True)


def test_a_full_disk_is_no_complaint(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="the smoke test's step collect gave no answer: OSError"):
        tried(tmp_path, DONE, FULL)


def test_a_file_that_was_not_read_whole_is_none() -> None:
    assert content_of("x", 100, CommandResult(0, b"5\n12345", 0.1)) == b"12345"
    with pytest.raises(InfrastructureError, match="x was read to 3 of its 5 bytes"):
        content_of("x", 100, CommandResult(0, b"5\n123", 0.1))


def test_a_killed_build_of_extensions_is_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    backend: Any = Scripted(KILLED)
    with pytest.raises(InfrastructureError, match="killed from outside"):
        build_extensions(backend, ExtensionBuild(SPEC, tmp_path / "tree"), tmp_path / "cache")


def test_a_python_that_is_killed_when_asked_is_not_one_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python3.12"
    python.write_text(f"#!/bin/sh\nkill -{int(signal.SIGKILL)} $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(interpreters, "_folders", lambda _: [tmp_path])
    with pytest.raises(InfrastructureError, match="was killed while it was asked"):
        interpreters.find_interpreters()
    python.write_text("#!/bin/sh\nkill -SEGV $$\n")
    assert interpreters.find_interpreters() == {}
