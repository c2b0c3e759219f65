"""A project with an extension module in C is evaluated: each state of its sources is built, in a real sandbox."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.enums import Outcome, RunStatus
from swefactory.evaluation import EvaluationSpec, TestRunResult, evaluate
from swefactory.protocols import ProjectLayout
from tests.fake_sandbox import diff_of, host_services
from tests.sandbox_contract import C_SOURCE, c_project, locked_environment, resolved

TEST = "from quick._speed import answer\n\ndef test_answer():\n    assert answer() == 42\n"
WRONG = C_SOURCE.replace("42", "41")
DAY = "2025-01-01T00:00:00Z"


@pytest.fixture
def run(namespace_backend: Any, tmp_path: Path) -> Any:
    version = locked_environment(namespace_backend).python_version
    tree = c_project(tmp_path / "tree", "src")
    (tree / "src" / "quick" / "_speed.c").write_text(WRONG)
    (tree / "test_quick.py").write_text(TEST)
    spec = EvaluationSpec(
        environment=resolved(namespace_backend, version, "pytest", as_of=DAY),
        tree=tree,
        layout=ProjectLayout("quick", "1", ("src",)),
        patches=(),
        test_files=("test_quick.py",),
        timeout_s=60,
        build=resolved(namespace_backend, version, "setuptools", "wheel", as_of=DAY),
    )
    services = host_services(tmp_path / "home", namespace_backend)

    def evaluated(*sources: str) -> TestRunResult:
        path = "src/quick/_speed.c"
        patches = tuple(diff_of({path: WRONG}, {path: source}) for source in sources)
        return evaluate(services, replace(spec, patches=patches))

    return evaluated


def test_each_state_of_the_sources_is_built_and_tested(run: Any) -> None:
    before, after = run(), run(C_SOURCE)
    assert [each.outcome for each in before.outcomes] == [Outcome.FAILED], before
    assert [each.outcome for each in after.outcomes] == [Outcome.PASSED], after


def test_a_patch_that_does_not_compile_passes_no_test_and_says_why(run: Any) -> None:
    broken = run("this is no C\n")
    assert (broken.status, broken.outcomes) == (RunStatus.COMPLETED, ())
    assert "_speed.c:1" in broken.detail
