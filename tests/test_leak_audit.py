"""The leak audit: clean where nothing leaks, and each planted leak is found by its place."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swefactory.certificates import LeakReport
from swefactory.evaluation import EvaluationSpec
from swefactory.leak_audit import audit, distinctive_lines, is_distinctive
from swefactory.protocols import ProjectLayout
from swefactory.sandbox_protocols import Sandbox, SandboxSpec
from tests.fake_sandbox import HERE, HostBackend, diff_of, host_services, pytest_alone, write_tree
from tests.sandbox_contract import locked_environment

BASE = {"calc.py": "def add(a, b):\n    return a - b  # wrong since the first release\n", "README": "a calculator\n"}
FIX = """    checked = both_are_numbers(left=a, right=b)
    return sum_of(first=a, second=b) if checked else None
    # neither overflow nor underflow may happen here
"""
LINES = tuple(line.strip() for line in sorted(FIX.splitlines(), key=lambda line: -len(line.strip())))
FIXED = {**BASE, "calc.py": "def add(a, b):\n" + FIX}
PATCH = diff_of(BASE, FIXED)
Audit = Callable[..., LeakReport]


class PlantingBackend(HostBackend):
    """Sandboxes in which a leak is planted when they open, as a careless preparation would leave it."""

    def __init__(self, plant: Callable[[Path], None]) -> None:
        super().__init__({HERE.digest: pytest_alone()})
        self._plant = plant

    def open(self, spec: SandboxSpec) -> AbstractContextManager[Sandbox]:
        return self._planted(spec)

    @contextmanager
    def _planted(self, spec: SandboxSpec) -> Iterator[Sandbox]:
        with super().open(spec) as sandbox:
            self._plant(sandbox.root)  # type: ignore[attr-defined]
            yield sandbox


@pytest.fixture
def audited(tmp_path: Path) -> Audit:
    def run(plant: Callable[[Path], None] = lambda root: None, base: dict[str, str] = BASE) -> LeakReport:
        services = host_services(tmp_path / "home", PlantingBackend(plant))
        return audit(services, spec_in(tmp_path, base), PATCH)

    return run


def spec_in(folder: Path, base: dict[str, str]) -> EvaluationSpec:
    tree = write_tree(folder / "tree", base)
    return EvaluationSpec(HERE, tree, ProjectLayout("calc", "1"), (), ("tests/test_calc.py",), 60)


def git(root: Path, *args: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", *identity, *args], cwd=root / "testbed", check=True, capture_output=True)


def commits_the_fix(root: Path) -> None:
    (root / "testbed/calc.py").write_text(FIXED["calc.py"])
    git(root, "commit", "-qam", "Fix #7")


def forgets_a_commit(root: Path) -> None:
    """What a reset leaves: objects, a reflog, ORIG_HEAD."""
    commits_the_fix(root)
    git(root, "reset", "-q", "--hard", "HEAD~1")


def only_objects(root: Path) -> None:
    forgets_a_commit(root)
    subprocess.run(["rm", "-rf", "logs", "ORIG_HEAD", "COMMIT_EDITMSG"], cwd=root / "testbed/.git", check=True)


def writes(path: str, text: str = "x\n") -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    return plant


LEAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a later commit": (commits_the_fix, "2 commits"),
    "a forgotten commit": (forgets_a_commit, "ORIG_HEAD"),
    "its reflog": (forgets_a_commit, "/logs "),
    "objects alone": (only_objects, "objects do not belong"),
    "a tag": (lambda root: git(root, "tag", "v2"), "refs/tags/v2"),
    "a note": (lambda root: git(root, "notes", "add", "-m", "fixed by abc"), "refs/notes/commits"),
    "a remote's branch": (lambda root: git(root, "update-ref", "refs/remotes/origin/main", "HEAD"), "refs/remotes"),
    "packed refs": (writes("testbed/.git/packed-refs", "# pack-refs with: peeled sorted \n"), "packed-refs"),
    "FETCH_HEAD": (writes("testbed/.git/FETCH_HEAD"), "FETCH_HEAD"),
    "a hook": (writes("testbed/.git/hooks/post-checkout"), "hooks"),
    "an alternate": (writes("testbed/.git/objects/info/alternates", "/nowhere\n"), "alternates"),
    "a submodule's store": (writes("testbed/.git/modules/sub/HEAD"), "modules"),
    "a worktree": (writes("testbed/.git/worktrees/w/HEAD"), "worktrees"),
    "another repository": (writes("testbed/vendor/.git/HEAD"), "another repository"),
    "a release unpacked": (writes("home/lib/calc-2.0.dist-info/METADATA"), "calc-2.0.dist-info is another copy"),
    "a wheel in a cache": (writes("home/.cache/calc-2.0-py3-none-any.whl"), ".whl is another copy"),
    "a source archive": (writes("tmp/calc-2.0.tar.gz"), "calc-2.0.tar.gz is another copy"),
    "a line of the fix": (writes("home/notes.txt", "see\n" + FIX), "notes.txt holds lines of the fix"),
    "a line in the checkout": (writes("testbed/calc.py.orig", FIX), "calc.py.orig holds lines of the fix"),
}  # fmt: skip


def test_what_an_agent_gets_leaks_nothing(audited: Audit) -> None:
    report = audited()
    assert report.findings == ()
    assert report.lines == LINES
    assert report.n_objects == 4  # a commit, a tree, two files
    assert report.n_files > 10


@pytest.mark.parametrize("name", LEAKS)
def test_each_planted_leak_is_found_by_its_place(name: str, audited: Audit) -> None:
    plant, said = LEAKS[name]
    findings = audited(plant).findings
    assert any(said in finding for finding in findings), findings


def test_other_packages_and_the_projects_own_metadata_are_no_leak(audited: Audit) -> None:
    def plant(root: Path) -> None:
        writes("home/calculator-2.0.dist-info/METADATA")(root)
        writes("home/calc_tools-1.0.whl")(root)
        writes("testbed/dist/calc-1.0.tar.gz")(root)

    assert audited(plant).findings == ()


def test_a_line_that_the_base_commit_has_tells_nothing(audited: Audit) -> None:
    report = audited(writes("home/notes.txt", FIX), {**BASE, "old.py": FIX})
    assert (report.lines, report.findings) == ((), ())


def test_one_line_or_two_elsewhere_are_chance(audited: Audit) -> None:
    assert audited(writes("home/notes.txt", "\n".join(LINES[:2]))).findings == ()


def test_of_a_patch_with_one_common_line_nothing_is_looked_for(tmp_path: Path) -> None:
    """`for value in values:` stands in many a file of Python's own library."""
    common = "def total(values):\n    for value in values:\n        pass\n"
    tree = write_tree(tmp_path, BASE)
    assert distinctive_lines(diff_of(BASE, {**BASE, "new.py": common}), tree) == ()
    telling = f"{common}    # neither overflow nor underflow may happen here\n"
    assert distinctive_lines(diff_of(BASE, {**BASE, "new.py": telling}), tree) == (LINES[1],)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    return sum_of(first=a, second=b)", True),
        ("        return None", False),
        ("    }, {}, [], (), 1, 2, 3, 4, 5, 6", False),
        ("import os, sys, re", False),
    ],
)
def test_a_distinctive_line_is_not_written_twice_by_chance(line: str, expected: bool) -> None:
    assert is_distinctive(line) is expected


def test_ten_lines_are_looked_for_at_most_the_longest_first(tmp_path: Path) -> None:
    text = "".join(f"    some_long_name_{'x' * n} = other_name(third_name)\n" for n in range(20))
    lines = distinctive_lines(diff_of(BASE, {**BASE, "new.py": text}), write_tree(tmp_path, BASE))
    assert len(lines) == 10
    assert [len(line) for line in lines] == sorted((len(line) for line in lines), reverse=True)


@pytest.mark.parametrize("kind", ["namespace", "docker"])
def test_a_real_sandbox_of_the_base_commit_leaks_nothing(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backend = real_backend(kind, request, tmp_path)
    spec = replace(spec_in(tmp_path, BASE), environment=locked_environment(backend))
    report = audit(host_services(tmp_path / "home", backend), spec, PATCH)
    assert report.findings == ()
    assert (report.n_objects, len(report.lines)) == (4, 3)
    assert report.n_files > 100


def real_backend(kind: str, request: pytest.FixtureRequest, folder: Path) -> Any:
    if kind == "namespace":
        return request.getfixturevalue("namespace_backend")
    from swefactory.config import Settings
    from swefactory.wiring import make_sandboxes

    request.getfixturevalue("docker_engine")
    return make_sandboxes(Settings(home=folder / "docker-home", sandbox="docker"))
