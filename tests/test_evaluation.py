"""Evaluation: patches onto a copy of the base tree, a fresh sandbox, and what the run is worth."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from db.enums import Outcome, RejectReason, RunStatus
from swefactory.checkouts import run_git
from swefactory.errors import InfrastructureError, Rejected
from swefactory.evaluation import EvaluationSpec, evaluate, installed_modules, restricted
from swefactory.own_extensions import limits_of
from swefactory.protocols import ProjectLayout
from swefactory.sandbox_protocols import CommandResult, Sandbox, SandboxSpec
from tests.fake_sandbox import HERE, HostBackend, diff_of, host_services, write_tree

BASE = {"calc.py": "def add(a, b):\n    return a - b\n", "tests/test_calc.py": "def test_old(): pass\n"}
TESTS = {
    **BASE,
    "tests/test_calc.py": "from calc import add\ndef test_old(): pass\ndef test_add(): assert add(1, 1) == 2\n",
}
FIX = {**BASE, "calc.py": "def add(a, b):\n    return a + b\n"}
TEST_PATCH, PATCH = diff_of(BASE, TESTS), diff_of(BASE, FIX)


@pytest.fixture
def spec(tmp_path: Path) -> EvaluationSpec:
    return EvaluationSpec(
        environment=HERE,
        tree=write_tree(tmp_path / "tree", BASE),
        layout=ProjectLayout("calc", "1"),
        patches=(TEST_PATCH,),
        test_files=("tests/test_calc.py",),
        timeout_s=60,
    )


class ScriptedSandbox:
    """A sandbox in which one command ends as it is told and one record lies."""

    def __init__(self, ended: CommandResult, record: bytes | Exception) -> None:
        self._ended, self._record = ended, record

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        stdin: bytes = b"",
    ) -> CommandResult:
        return self._ended

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        raise AssertionError("an evaluation writes nothing into a sandbox")

    def read(self, path: str, max_bytes: int = 0) -> bytes:
        if isinstance(self._record, Exception):
            raise self._record
        return self._record

    def shell_argv(self) -> list[str]:
        return []


class ScriptedBackend(HostBackend):
    def __init__(self, ended: CommandResult, record: bytes | Exception = b"") -> None:
        super().__init__({})
        self._sandbox = ScriptedSandbox(ended, record)

    def open(self, spec: SandboxSpec) -> AbstractContextManager[Sandbox]:
        return nullcontext(self._sandbox)


def test_the_patches_decide_what_the_tests_see(spec: EvaluationSpec, tmp_path: Path) -> None:
    services = host_services(tmp_path)
    before, after = (evaluate(services, replace(spec, patches=p)) for p in ((TEST_PATCH,), (PATCH, TEST_PATCH)))
    assert [r.outcome for r in before.outcomes] == [Outcome.PASSED, Outcome.FAILED]
    assert [r.outcome for r in after.outcomes] == [Outcome.PASSED, Outcome.PASSED]
    assert b"must fail" in after.log


def test_patches_are_applied_although_the_home_lies_in_somebodys_repository(
    spec: EvaluationSpec, tmp_path: Path
) -> None:
    run_git(tmp_path, "init", "--quiet")
    result = evaluate(host_services(tmp_path / "home"), replace(spec, patches=(PATCH, TEST_PATCH)))
    assert {r.outcome for r in result.outcomes} == {Outcome.PASSED}


def test_the_shared_tree_is_never_written(spec: EvaluationSpec, tmp_path: Path) -> None:
    services = host_services(tmp_path)
    evaluate(services, replace(spec, patches=(PATCH, TEST_PATCH)))
    assert {str(p.relative_to(spec.tree)) for p in spec.tree.rglob("*") if p.is_file()} == set(BASE)
    assert (spec.tree / "calc.py").read_text() == BASE["calc.py"]
    assert list((tmp_path / "cache/scratch").iterdir()) == []


def test_a_patch_that_does_not_apply_is_a_verdict_and_opens_no_sandbox(spec: EvaluationSpec, tmp_path: Path) -> None:
    backend = HostBackend({})
    with pytest.raises(Rejected) as verdict:
        evaluate(host_services(tmp_path, backend), replace(spec, patches=(PATCH, PATCH)))
    assert verdict.value.reason is RejectReason.PATCH_DOES_NOT_APPLY
    assert "patch 2 of 2" in verdict.value.detail
    assert backend.n_opened == 0


def test_test_files_that_are_not_there_collect_nothing(spec: EvaluationSpec, tmp_path: Path) -> None:
    result = evaluate(host_services(tmp_path), replace(spec, test_files=("tests/test_gone.py",)))
    assert (result.status, result.outcomes, result.n_collected) == (RunStatus.COMPLETED, (), 0)
    some = evaluate(host_services(tmp_path), replace(spec, test_files=("tests/test_gone.py", "tests/test_calc.py")))
    assert len(some.outcomes) == 2
    assert "1 of 2 test files are not in the tree" in some.detail


def test_the_hash_seed_and_the_environments_variables_reach_the_tests(spec: EvaluationSpec, tmp_path: Path) -> None:
    code = "import os\ndef test_it(): assert (os.environ['PYTHONHASHSEED'], os.environ['COLOUR']) == ('7', 'red')\n"
    write_tree(spec.tree, {"tests/test_calc.py": code})
    run = replace(spec, patches=(), hash_seed=7, environment_variables={"COLOUR": "red", "PYTHONHASHSEED": "1"})
    assert [r.outcome for r in evaluate(host_services(tmp_path), run).outcomes] == [Outcome.PASSED]


def test_folders_that_are_no_packages_have_canaries_of_different_names(spec: EvaluationSpec, tmp_path: Path) -> None:
    """pytest takes two modules of one name for one, unless they lie in packages."""
    code = "def test_here(): pass\n"
    files = {"tests/test_one.py": code, "tests/deep/test_two.py": code}
    write_tree(spec.tree, files)
    result = evaluate(host_services(tmp_path), replace(spec, patches=(), test_files=tuple(files)))
    assert result.status is RunStatus.COMPLETED, result.detail
    assert [test.outcome for test in result.outcomes] == [Outcome.PASSED] * 2


def test_tests_that_do_not_end_time_out(spec: EvaluationSpec, tmp_path: Path) -> None:
    write_tree(spec.tree, {"tests/test_calc.py": "import time\ndef test_it(): time.sleep(60)\n"})
    result = evaluate(host_services(tmp_path), replace(spec, patches=(), timeout_s=3))
    assert (result.status, result.outcomes, result.exit_code) == (RunStatus.TIMED_OUT, (), None)


@pytest.mark.parametrize(
    ("ended", "record", "cause"),
    [
        (CommandResult(1, b"no such file\n", 0.1), FileNotFoundError(), "no_record"),
        (CommandResult(1, b"", 0.1), b"", "no_record"),
        (CommandResult(137, b"", 0.1, out_of_memory=True), b"", "out_of_memory"),
        (CommandResult(0, b"", 0.1), b"forged\n", "tampered"),
        (CommandResult(1, b"", 0.1), InfrastructureError("larger"), "unreadable"),
    ],
)
def test_a_run_without_a_sound_record_is_void(
    ended: CommandResult, record: bytes | Exception, cause: str, spec: EvaluationSpec, tmp_path: Path
) -> None:
    result = evaluate(host_services(tmp_path, ScriptedBackend(ended, record)), spec)
    assert (result.status, result.void_cause, result.outcomes) == (RunStatus.VOID, cause, ())
    assert result.detail.startswith(cause)


def test_an_environment_without_pytest_is_void_and_says_so(spec: EvaluationSpec, tmp_path: Path) -> None:
    import venv

    venv.create(tmp_path / "venv", symlinks=True)
    result = evaluate(host_services(tmp_path, HostBackend({HERE.digest: tmp_path / "venv"})), spec)
    assert (result.status, result.void_cause) == (RunStatus.VOID, "no_pytest")
    assert "No module named 'pytest'" in result.detail


def test_the_settings_bound_the_sandbox(tmp_path: Path) -> None:
    limits = limits_of(host_services(tmp_path, sandbox_memory_bytes=5, sandbox_processes=6, log_cap_bytes=7).settings)
    assert (limits.memory_bytes, limits.n_processes, limits.output_bytes) == (5, 6, 7)


def test_a_restricted_patch_reads_the_base_commits_configuration(spec: EvaluationSpec) -> None:
    base = {"setup.cfg": "[metadata]\nname = calc\n\n[tool:pytest]\naddopts = -ra\n"}
    write_tree(spec.tree, base)
    harmless = diff_of(base, {"setup.cfg": base["setup.cfg"].replace("calc", "other")})
    harmful = diff_of(base, {"setup.cfg": base["setup.cfg"].replace("-ra", "-p evil")})
    assert restricted(harmless, TEST_PATCH, spec.tree, "").dropped == ()
    assert restricted(harmful, TEST_PATCH, spec.tree, "").dropped == ("setup.cfg",)
    with pytest.raises(Rejected) as verdict:
        restricted("no diff", TEST_PATCH, spec.tree, "")
    assert verdict.value.reason is RejectReason.PATCH_DOES_NOT_APPLY


def test_the_modules_of_a_lock_are_named_as_they_are_imported() -> None:
    lock = "attrs==23.1 \\\n    --hash=sha256:ab\nzope.interface==5 \\\npytest-mock==3\nuvicorn[standard]==1 # via x\n"
    assert installed_modules(lock) == {"attrs", "attr", "zope_interface", "pytest_mock", "uvicorn"}
