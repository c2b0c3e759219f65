"""Evaluation against a scripted sandbox: what is asked of it, and what each answer is worth. No process runs."""

import io
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.enums import Outcome, RejectReason, RunStatus
from swefactory.errors import InfrastructureError, Rejected
from swefactory.evaluation import (
    INPUTS,
    EvaluationSpec,
    TestRunResult,
    evaluate,
    installed_modules,
    limits_of,
    reader,
    restricted,
)
from swefactory.grading import Conditions
from swefactory.protocols import ProjectLayout
from swefactory.sandbox_protocols import CommandResult, EnvironmentSpec
from swefactory.stability import CLOCK_SHIFT_S
from tests.fake_sandbox import HERE, diff_of, host_services, write_tree
from tests.scripted_sandbox import Script, ScriptedBackend, sound_run

BASE = {"calc.py": "def add(a, b):\n    return a - b\n", "tests/test_calc.py": "def test_old(): pass\n"}
FIX = {**BASE, "calc.py": "def add(a, b):\n    return a + b\n"}
TESTS = {**BASE, "tests/test_calc.py": "def test_new(): pass\n"}
PATCH, TEST_PATCH = diff_of(BASE, FIX), diff_of(BASE, TESTS)
BUILD = EnvironmentSpec(digest="sha256:build", python_version="3.12", lock="")
OUTCOMES = {"tests/test_calc.py::test_a": "passed", "tests/test_calc.py::test_b": "failed"}


@pytest.fixture
def spec(tmp_path: Path) -> EvaluationSpec:
    return EvaluationSpec(
        environment=HERE,
        tree=write_tree(tmp_path / "tree", BASE),
        layout=ProjectLayout("calc", "1"),
        patches=(),
        test_files=("tests/test_calc.py",),
        timeout_s=60,
    )


@pytest.fixture
def run(spec: EvaluationSpec, tmp_path: Path) -> Callable[..., TestRunResult]:
    """Runs `spec` with some fields changed, against a script."""

    def evaluated(script: Script, settings: dict[str, Any] | None = None, **changed: Any) -> TestRunResult:
        services = host_services(tmp_path / "home", ScriptedBackend(script), **(settings or {}))
        return evaluate(replace(services, label="7.1"), replace(spec, **changed))

    return evaluated


Run = Callable[..., TestRunResult]


# ---------------------------------------------------------------- what is asked


def test_a_sandbox_is_opened_for_the_patched_tree_with_our_inputs_and_the_settings_limits(run: Run) -> None:
    script = Script()
    run(script, {"sandbox_cpus": 3, "sandbox_memory_bytes": 5}, patches=(PATCH, TEST_PATCH))
    ((opened, files),) = script.opened
    assert (opened.environment, opened.label, opened.inputs) == (HERE, "7.1", INPUTS)
    assert (opened.limits.n_cpus, opened.limits.memory_bytes) == (3, 5)
    assert (files["calc.py"], files["tests/test_calc.py"]) == (FIX["calc.py"], TESTS["tests/test_calc.py"])
    assert files["project:project.pth"] == "/testbed\n"
    assert "Name: calc" in files["project:calc-1.dist-info/METADATA"]


def test_files_that_a_build_would_generate_are_written_into_the_checkout(run: Run) -> None:
    script = Script()
    run(script, layout=ProjectLayout("calc", "1", generated_files={"_version.py": "version = '1'\n"}))
    assert script.opened[0][1]["_version.py"] == "version = '1'\n"


def test_the_runner_is_asked_for_the_present_files_in_this_order_with_a_fresh_key(run: Run) -> None:
    asked = []
    for _ in range(2):
        script = Script()
        run(script, order="reversed", test_files=("tests/test_gone.py", "tests/test_calc.py"))
        (call,) = script.calls
        asked.append(script.request)
        assert call["argv"] == ["/opt/env/bin/python", "/opt/inputs/swefactory_run.py"]
        assert (call["timeout_s"], call["cwd"]) == (60, "/testbed")
        assert script.reads == [("/opt/results/record", 256 * 1024 * 1024)]
    assert asked[0].keys() == {"key", "record", "canary", "order", "arguments", "measure_cpu", "command"}
    assert (asked[0]["record"], asked[0]["order"]) == ("/opt/results/record", "reversed")
    assert (asked[0]["arguments"], asked[0]["measure_cpu"]) == (["tests/test_calc.py"], False)
    assert (len(asked[0]["key"]), len(asked[0]["canary"])) == (64, 12)
    assert asked[0]["key"] != asked[1]["key"]
    assert asked[0]["canary"] != asked[1]["canary"]


def test_a_command_without_pytest_is_the_second_runners(run: Run) -> None:
    script = Script()
    run(script, test_command=("manage.py", "test"))
    assert script.calls[0]["argv"] == ["/opt/env/bin/python", "/opt/inputs/swefactory_unittest.py"]
    assert script.request["command"] == ["manage.py", "test"]


@pytest.mark.parametrize(("has_route", "network"), [(True, "out"), (False, "none")])
def test_a_run_with_a_network_says_whether_it_had_one(has_route: bool, network: str, run: Run) -> None:
    script = Script(events=lambda request: sound_run(request, OUTCOMES, has_route=has_route))
    result = run(script, is_online=True)
    assert script.opened[0][0].is_online
    assert (result.conditions, result.measured["network"]) == (Conditions(is_online=True), network)
    assert "network" not in run(Script()).measured


def test_the_instances_variables_reach_the_tests_but_the_hash_seed_is_ours(run: Run) -> None:
    script = Script()
    run(script, hash_seed=7, environment_variables={"COLOUR": "red", "PYTHONHASHSEED": "1"})
    assert script.calls[0]["env"] == {"COLOUR": "red", "PYTHONHASHSEED": "7"}


@pytest.mark.parametrize(("cpus", "given"), [(2.0, 0.5), (0.25, 0.25)])
def test_a_slow_run_gets_little_cpu_and_never_more_than_the_settings_give(cpus: float, given: float, run: Run) -> None:
    script = Script()
    run(script, {"sandbox_cpus": cpus, "sandbox_memory_bytes": 5}, is_slow=True)
    assert (script.opened[0][0].limits.n_cpus, script.opened[0][0].limits.memory_bytes) == (given, 5)
    assert script.request["measure_cpu"] is True


@pytest.mark.parametrize(
    "compiled", [CommandResult(127, b"env: cc: No such file", 0.0), CommandResult(None, b"", 60.0)]
)
def test_a_shifted_run_without_a_compiler_is_in_another_zone_alone(compiled: CommandResult, run: Run) -> None:
    script = Script(compiled=compiled)
    run(script, is_shifted=True)
    assert script.calls[1]["env"] == {"PYTHONHASHSEED": "1", "TZ": "SWE-14"}
    assert script.calls[1]["argv"] == ["/opt/env/bin/python", "/opt/inputs/swefactory_run.py"]


def test_a_shifted_run_is_at_another_time_but_what_starts_it_is_not(run: Run) -> None:
    script = Script(compiled=CommandResult(0, b"", 0.1))
    run(script, is_shifted=True, environment_variables={"TZ": "UTC"})
    compiling, running = script.calls
    assert compiling["argv"] == [
        "/usr/bin/env", "cc", "-shared", "-fPIC", "-O1", "-o", "/opt/results/clock.so",
        "/opt/inputs/swefactory_clock.c", "-ldl",
    ]  # fmt: skip
    assert (compiling["timeout_s"], compiling["cwd"], compiling["env"]) == (60, "/", {})
    assert running["env"] == {"PYTHONHASHSEED": "1", "TZ": "SWE-14"}
    assert running["argv"] == [
        "/usr/bin/env", "LD_PRELOAD=/opt/results/clock.so", f"SWEFACTORY_CLOCK_SHIFT_S={CLOCK_SHIFT_S}",
        "/opt/env/bin/python", "/opt/inputs/swefactory_run.py",
    ]  # fmt: skip


# ---------------------------------------------------------------- what an answer is worth


def test_a_sound_record_is_a_completed_run_with_all_that_it_says(run: Run) -> None:
    script = Script(events=lambda request: sound_run(request, OUTCOMES))
    result = run(script, order="random:5", hash_seed=5)
    assert (result.status, result.order, result.exit_code, result.n_collected) == (
        RunStatus.COMPLETED,
        "random:5",
        1,
        2,
    )
    assert [(r.test_id, r.outcome) for r in result.outcomes] == [
        ("tests/test_calc.py::test_a", Outcome.PASSED), ("tests/test_calc.py::test_b", Outcome.FAILED),
    ]  # fmt: skip
    assert result.detail == "options of absent plugins left out: --cov"
    assert (result.duration_s, result.void_cause, result.collection_errors) == (2.5, None, ())
    assert result.versions == {"python": "3.12.1", "pytest": "9.0", "plugin": "2"}
    assert result.conditions == Conditions("random:5", 5)
    told = (
        f"# test_{script.request['canary']}.py holds the tests that must fail: they show that failures are reported\n"
    )
    assert result.log == told.encode() + b"=== 1 failed ===\n"


def test_collection_errors_of_a_completed_run_are_told(run: Run) -> None:
    def events(request: Any) -> Any:
        start, configured, *rest = sound_run(request, {})
        return [start, configured, {"event": "collect_error", "id": "tests/test_calc.py", "message": "no x"}, *rest]

    (error,) = run(Script(events=events)).collection_errors
    assert (error.test_id, error.message) == ("tests/test_calc.py", "no x")


def test_test_files_that_are_missing_are_counted(run: Run) -> None:
    result = run(Script(), test_files=("a.py", "tests/test_calc.py", "b.py"))
    assert result.detail == "2 of 3 test files are not in the tree; options of absent plugins left out: --cov"
    script = Script()
    none = run(script, order="reversed", test_files=("a.py", "tests"))
    assert none == TestRunResult(RunStatus.COMPLETED, "reversed", "none of the 2 test files is in the tree")
    assert script.opened == []


def test_a_run_without_a_note_has_no_detail(run: Run) -> None:
    def ignoring(*options: str) -> Script:
        def events(request: Any) -> Any:
            start, configured, *rest = sound_run(request, OUTCOMES)
            return [start, {**configured, "ignored": list(options)}, *rest]

        return Script(events=events)

    assert run(ignoring()).detail == ""
    assert run(ignoring("--cov", "-n4")).detail == "options of absent plugins left out: --cov -n4"


def test_a_run_that_does_not_end_is_timed_out_under_the_conditions_asked_for(run: Run) -> None:
    ended = CommandResult(None, b"half\n", 61.5, timed_out=True)
    result = run(Script(ended=ended), order="reversed", hash_seed=2, is_slow=True, is_shifted=True)
    assert (result.status, result.order, result.detail) == (
        RunStatus.TIMED_OUT, "reversed", "the tests did not end within 60 s",
    )  # fmt: skip
    assert (result.exit_code, result.outcomes, result.duration_s) == (None, (), 61.5)
    assert result.log.endswith(b"\nhalf\n")
    assert result.conditions == Conditions("reversed", 2, is_slow=True, is_shifted=True)


@pytest.mark.parametrize(
    ("ended", "record", "said"),
    [
        (CommandResult(3, b"a\nno such file\n\n", 0.1), FileNotFoundError(),
         "no_record: there is no record; the process ended with 3: no such file"),
        (CommandResult(1, b"\xff!\n", 0.1), FileNotFoundError(),
         "no_record: there is no record; the process ended with 1: \ufffd!"),
        (CommandResult(1, b"", 0.1), FileNotFoundError(),
         "no_record: there is no record; the process ended with 1: it printed nothing"),
        (CommandResult(1, b"x", 0.1), b"", "no_record: nothing was recorded; the process ended with 1"),
        (CommandResult(137, b"", 0.1, out_of_memory=True), FileNotFoundError(),
         "out_of_memory: the tests needed more memory than the sandbox has"),
        (CommandResult(0, b"", 0.1), b"forged\n", "tampered: line 1 of the record was not written by the plugin"),
        (CommandResult(1, b"", 0.1), InfrastructureError("it is larger"), "unreadable: it is larger"),
    ],
)  # fmt: skip
def test_a_run_without_a_sound_record_is_void_and_says_why(
    ended: CommandResult, record: bytes | Exception, said: str, run: Run
) -> None:
    result = run(Script(ended=ended, record=record), order="reversed")
    assert (result.status, result.order, result.detail) == (RunStatus.VOID, "reversed", said)
    assert str(result.void_cause) == said.split(":")[0]
    assert (result.exit_code, result.duration_s, result.outcomes) == (ended.exit_code, 0.1, ())
    assert result.log.startswith(b"# test_")
    assert result.log.endswith(ended.output)


def test_a_record_whose_exit_code_is_not_the_processs_is_void(run: Run) -> None:
    script = Script(events=lambda request: sound_run(request, OUTCOMES), ended=CommandResult(0, b"", 0.1))
    assert run(script).void_cause == "contradicted"


# ---------------------------------------------------------------- conditions are measured, not asked for


def measuring(**start: Any) -> Script:
    return Script(events=lambda request: sound_run(request, OUTCOMES, **start))


@pytest.mark.parametrize(("share", "is_slow"), [(0.5, True), (0.75, True), (0.76, False), (None, False)])
def test_a_run_is_slow_only_where_the_processor_was_little(share: float | None, is_slow: bool, run: Run) -> None:
    script = measuring(**({} if share is None else {"cpu_share": share}))
    result = run(script, is_slow=True)
    assert result.conditions.is_slow is is_slow
    assert result.measured.get("cpu_share") == share
    assert not run(script).conditions.is_slow  # it was not asked for


@pytest.mark.parametrize(
    ("zone", "shift_s", "is_shifted", "measured"),
    [
        ("+0000", 0, False, 0.0),
        ("+1400", 0, True, 0.0),
        ("+0000", CLOCK_SHIFT_S, True, float(CLOCK_SHIFT_S)),
        ("+0000", CLOCK_SHIFT_S * 0.4, False, 0.0),
        ("+0000", CLOCK_SHIFT_S * 0.6, True, CLOCK_SHIFT_S * 0.6),
    ],
)
def test_a_run_is_shifted_only_where_zone_or_clock_were(
    zone: str, shift_s: float, is_shifted: bool, measured: float, run: Run
) -> None:
    script = measuring(now=time.time() + shift_s, utc_offset=zone)
    result = run(script, is_shifted=True)
    assert result.conditions.is_shifted is is_shifted
    assert result.measured["clock_shift_s"] == pytest.approx(measured, abs=60)
    assert (result.measured["utc_offset"], result.measured["hash_seed"]) == (zone, 1)
    assert "cpu_share" not in result.measured
    assert not run(script).conditions.is_shifted


def test_a_record_that_measured_nothing_shows_no_shift(run: Run) -> None:
    result = run(measuring(), is_shifted=True, hash_seed=4)
    assert result.measured == {"hash_seed": 4, "clock_shift_s": 0.0}
    assert result.conditions == Conditions("default", 4)


# ---------------------------------------------------------------- extension modules


def tar_of(**files: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def test_extension_modules_are_built_of_the_patched_sources_and_laid_beside_them(run: Run) -> None:
    script = Script(built=tar_of(fast__so="machine code"))
    settings = {"build_timeout_s": 77, "sandbox_memory_bytes": 5}
    layout = ProjectLayout("calc", "1", ("src", "."))
    result = run(script, settings, build=BUILD, layout=layout, patches=(PATCH,), environment_variables={"V": "1"})
    (build, sources), (tests, checkout) = script.opened
    assert result.status is RunStatus.COMPLETED
    assert (build.environment, build.label, build.limits.memory_bytes) == (BUILD, "7.1", 5)
    assert (sources["calc.py"], "fast.so" in sources) == (FIX["calc.py"], False)
    assert (tests.environment, checkout["fast.so"]) == (HERE, "machine code")
    version = {"SETUPTOOLS_SCM_PRETEND_VERSION": "1", "PBR_VERSION": "1", "PDM_BUILD_SCM_VERSION": "1"}
    assert (script.calls[0]["timeout_s"], script.calls[0]["env"]) == (77, {"V": "1", **version})
    assert script.calls[0]["argv"][-2:] == ["src", "."]


def test_modules_that_were_built_before_are_not_built_again(run: Run) -> None:
    run(Script(built=tar_of(fast__so="machine code")), build=BUILD)
    again = Script()
    run(again, build=BUILD)
    assert [spec.environment for spec, _ in again.opened] == [HERE]


def test_sources_that_do_not_compile_are_a_run_in_which_nothing_passed(run: Run) -> None:
    script = Script(build=CommandResult(1, b"_speed.c:1: error\n", 0.1))
    result = run(script, build=BUILD, order="reversed")
    assert (result.status, result.order, result.outcomes) == (RunStatus.COMPLETED, "reversed", ())
    assert result.detail == "the project's own build failed: it ended with 1\n_speed.c:1: error"
    assert result.log == b"_speed.c:1: error"
    assert len(script.opened) == 1


# ---------------------------------------------------------------- patches


def test_a_patch_that_does_not_apply_is_named_by_its_place_and_opens_nothing(run: Run) -> None:
    script = Script()
    with pytest.raises(Rejected) as verdict:
        run(script, patches=(PATCH, TEST_PATCH, PATCH))
    assert verdict.value.reason is RejectReason.PATCH_DOES_NOT_APPLY
    assert verdict.value.detail.startswith("patch 3 of 3: ")
    assert isinstance(verdict.value.__cause__, ValueError)
    assert script.opened == []


def test_a_patch_that_shadows_a_locked_package_is_dropped(spec: EvaluationSpec) -> None:
    shadow = diff_of(BASE, {**BASE, "iniconfig.py": "x = 1\n"})
    assert restricted(shadow, "", spec.tree, "iniconfig==2.0\n").dropped == ("iniconfig.py",)
    assert restricted(shadow, "", spec.tree, "").dropped == ()
    with pytest.raises(Rejected) as verdict:
        restricted("no diff", "", spec.tree, "")
    assert verdict.value.reason is RejectReason.PATCH_DOES_NOT_APPLY
    assert "not a git diff" in verdict.value.detail


def test_a_patch_of_shared_configuration_is_read_on_top_of_the_base_commits_file(spec: EvaluationSpec) -> None:
    base = {"setup.cfg": "[metadata]\nname = calc\n\n[tool:pytest]\naddopts = -ra\n"}
    write_tree(spec.tree, base)
    harmless = diff_of(base, {"setup.cfg": base["setup.cfg"].replace("calc", "other")})
    harmful = diff_of(base, {"setup.cfg": base["setup.cfg"].replace("-ra", "-p evil")})
    assert restricted(harmless, "", spec.tree, "").dropped == ()
    assert restricted(harmful, "", spec.tree, "").dropped == ("setup.cfg",)


def test_only_plain_files_of_a_readable_size_are_read_as_the_bases_text(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_bytes(b"caf\xe9\n")
    (tmp_path / "link").symlink_to(tmp_path / "text")
    (tmp_path / "just").write_bytes(b"x" * 2**20)
    (tmp_path / "large").write_bytes(b"x" * (2**20 + 1))
    read = reader(tmp_path)
    assert read("text") == "caf\udce9\n"
    assert [read(name) for name in ("folder", "link", "large", "absent")] == [None] * 4
    assert len(read("just") or "") == 2**20


def test_limits_are_the_settings(tmp_path: Path) -> None:
    settings = host_services(
        tmp_path, sandbox_memory_bytes=5, sandbox_processes=6, sandbox_cpus=1.5, sandbox_disk_bytes=8, log_cap_bytes=7
    ).settings
    limits = limits_of(settings)
    assert (limits.memory_bytes, limits.n_processes, limits.n_cpus) == (5, 6, 1.5)
    assert (limits.disk_bytes, limits.output_bytes) == (8, 7)


def test_the_packages_of_a_lock_are_named_as_they_are_imported() -> None:
    lock = (
        "Attrs==23.1 \\\n    --hash=sha256:ab\nzope.inter-face==5 \\\nuvicorn[standard] ==1 # via x\n# six==1\n  y==2\n"
    )
    assert installed_modules(lock) == {"attrs", "attr", "zope_inter_face", "uvicorn"}
    assert installed_modules("attr_s==1\n") == {"attr_s"}
