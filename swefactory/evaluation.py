"""Applies patches to a base commit's tree, runs the tests in a fresh sandbox, and collects the outcomes.

    base tree ──copy──► scratch ──patches in order──► fresh sandbox ──pytest + our plugin──► record ──► TestRunResult
                        └ made once for all runs of one state, which copy it and never write to it

One property: an outcome comes from an intact record of a run whose must-fail canaries failed, or there is none. The
run's status says which: completed (evidence), timed out, or void with the cause.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from db.enums import RejectReason, RunStatus
from swefactory.checkouts import Checkouts, apply_patch, copy_tree
from swefactory.config import Settings
from swefactory.errors import InfrastructureError, Rejected
from swefactory.grading import Conditions
from swefactory.model_patches import PatchUnreadable, RestrictedPatch, restrict
from swefactory.own_extensions import lay_extensions, limits_of
from swefactory.protocols import ProjectLayout
from swefactory.recipes.generated_files import write_generated
from swefactory.recipes.layout import write_project
from swefactory.run_record import CollectionError, RunRecord, TestResult, Void, VoidCause, read_record
from swefactory.runners import PYTEST, program, scripts
from swefactory.sandbox_protocols import (
    INPUTS_DIR,
    PYTHON,
    RESULTS_DIR,
    CommandResult,
    EnvironmentSpec,
    Limits,
    Sandbox,
    SandboxBackend,
    SandboxSpec,
)
from swefactory.sandboxes.extensions import ExtensionsFailed
from swefactory.stability import CLOCK_SHIFT_S, LOW_CPUS, SHIFTED_ZONE

INPUTS = Path(__file__).parent / "inputs"
_RECORD = f"{RESULTS_DIR}/record"
_CLOCK = f"{RESULTS_DIR}/clock.so"
_RECORD_BYTES = 256 * 2**20
_BASE_TEXT_BYTES = 2**20
_SLOW_SHARE = 0.75  # of a CPU: less than that is little, whatever the reason


class EvaluationServices(Protocol):
    """What an evaluation needs of swefactory.stage.Services, which stands above this module."""

    @property
    def settings(self) -> Settings: ...
    @property
    def checkouts(self) -> Checkouts: ...
    @property
    def sandboxes(self) -> SandboxBackend: ...
    @property
    def label(self) -> str: ...


@dataclass(frozen=True)
class EvaluationSpec:
    """One run of the tests. `tree` holds the base commit's files and is only read; `test_files` are relative to it;
    `order` is default, reversed or random:SEED."""

    environment: EnvironmentSpec
    tree: Path
    layout: ProjectLayout
    patches: tuple[str, ...]
    test_files: tuple[str, ...]
    timeout_s: float
    order: str = "default"
    hash_seed: int = 1
    is_slow: bool = False  # with LOW_CPUS
    is_shifted: bool = False  # in another time zone, and at another time where a C compiler is inside
    is_online: bool = False  # with a network that leads out, where the sandbox has one
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    test_command: tuple[str, ...] = PYTEST  # which runner, see swefactory.runners
    build: EnvironmentSpec | None = None  # what builds the project's own extension modules; None: it has none


@dataclass(frozen=True)
class TestRunResult:
    """What one run showed. `outcomes` is empty unless `status` is completed; `log` is the output of pytest, capped."""

    __test__ = False
    status: RunStatus
    order: str
    detail: str = ""
    exit_code: int | None = None
    n_collected: int = 0
    outcomes: tuple[TestResult, ...] = ()
    collection_errors: tuple[CollectionError, ...] = ()
    duration_s: float = 0.0
    log: bytes = b""
    void_cause: VoidCause | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=Conditions)  # what held inside, not what was asked for
    measured: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedState:
    """The files of one state, patches applied and extensions built: every run's sandbox is furnished with a copy. With
    `failed` nothing can run, and that is the result of each run."""

    checkout: Path
    project: Path
    test_files: tuple[str, ...]
    failed: TestRunResult | None = None


@contextmanager
def prepared(services: EvaluationServices, spec: EvaluationSpec) -> Iterator[PreparedState]:
    """Makes the files of the state that the spec's patches give; gone when the context ends. Raises
    Rejected(PATCH_DOES_NOT_APPLY), InfrastructureError."""
    with services.checkouts.scratch() as name:
        checkout, project = Path(name) / "checkout", Path(name) / "project"
        _build_checkout(checkout, spec)
        write_project(spec.layout, project)
        present = tuple(path for path in spec.test_files if (checkout / path).is_file())
        failed = None
        if not present:
            detail = f"none of the {len(spec.test_files)} test files is in the tree"
            failed = TestRunResult(RunStatus.COMPLETED, spec.order, detail)
        elif spec.build is not None:
            failed = _extend(services, spec, spec.build, checkout)
        yield PreparedState(checkout, project, present, failed)


def evaluate(services: EvaluationServices, spec: EvaluationSpec, state: PreparedState | None = None) -> TestRunResult:
    """Runs the tests once, in a fresh sandbox; `state` is that of the spec's patches where it stands already. Raises
    Rejected(PATCH_DOES_NOT_APPLY), InfrastructureError."""
    if state is None:
        with prepared(services, spec) as made:
            return evaluate(services, spec, made)
    if state.failed is not None:
        return replace(state.failed, order=spec.order)
    sandbox_spec = SandboxSpec(
        environment=spec.environment,
        checkout=state.checkout,
        project=state.project,
        inputs=INPUTS,
        limits=_limits(services.settings, spec),
        label=services.label,
        is_online=spec.is_online,
    )
    with services.sandboxes.open(sandbox_spec) as sandbox:
        return _run(sandbox, spec, state.test_files)


def _extend(
    services: EvaluationServices, spec: EvaluationSpec, environment: EnvironmentSpec, checkout: Path
) -> TestRunResult | None:
    """Builds the extension modules of exactly these sources, patches applied, and lays them beside. Sources that do not
    compile are a run in which no test passed: a patch is to blame, for the environment stage has built the base."""
    try:
        lay_extensions(services, environment, spec.layout, spec.environment_variables, checkout)
    except ExtensionsFailed as failed:
        return TestRunResult(RunStatus.COMPLETED, spec.order, failed.detail, log=failed.log.encode())
    return None


def _limits(settings: Settings, spec: EvaluationSpec) -> Limits:
    limits = limits_of(settings)
    return replace(limits, n_cpus=min(LOW_CPUS, limits.n_cpus)) if spec.is_slow else limits


def _build_checkout(checkout: Path, spec: EvaluationSpec) -> None:
    checkout.mkdir()
    copy_tree(spec.tree, checkout)
    for number, patch in enumerate(spec.patches, 1):
        try:
            apply_patch(checkout, patch)
        except ValueError as error:
            said = f"patch {number} of {len(spec.patches)}: {error}"
            raise Rejected(RejectReason.PATCH_DOES_NOT_APPLY, said) from error
    write_generated(spec.layout, checkout)


# ---------------------------------------------------------------- the run


def _run(sandbox: Sandbox, spec: EvaluationSpec, test_files: Sequence[str]) -> TestRunResult:
    key, canary = secrets.token_hex(32), secrets.token_hex(6)
    request = {
        "key": key, "record": _RECORD, "canary": canary, "order": spec.order, "arguments": list(test_files),
        "measure_cpu": spec.is_slow, "command": list(spec.test_command),
    }  # fmt: skip
    zone, clock = _shift(sandbox) if spec.is_shifted else ({}, [])
    started = time.time()
    ended = sandbox.run(
        [*clock, PYTHON, program(spec.test_command)],
        timeout_s=spec.timeout_s,
        env={**spec.environment_variables, "PYTHONHASHSEED": str(spec.hash_seed), **zone},
        stdin=json.dumps(request).encode(),
    )
    log = f"# test_{canary}.py holds the tests that must fail: they show that failures are reported\n".encode()
    log += ended.output
    if ended.timed_out:
        detail = f"the tests did not end within {spec.timeout_s:.0f} s"
        asked = Conditions(spec.order, spec.hash_seed, spec.is_slow, spec.is_shifted, spec.is_online)
        return TestRunResult(
            RunStatus.TIMED_OUT, spec.order, detail, duration_s=ended.duration_s, log=log, conditions=asked
        )
    found = _read(sandbox, ended, key, canary)
    if isinstance(found, Void):
        return TestRunResult(
            RunStatus.VOID, spec.order, f"{found.cause.value}: {found.detail}", ended.exit_code,
            duration_s=ended.duration_s, log=log, void_cause=found.cause,
            conditions=Conditions(spec.order, is_online=spec.is_online),
        )  # fmt: skip
    done = _completed(found, spec, ended, log, len(test_files))
    conditions, measured = _conditions(spec, found.measured, started)
    return replace(done, conditions=conditions, measured=measured)


def _shift(sandbox: Sandbox) -> tuple[dict[str, str], list[str]]:
    """Variables for another time zone; and what a command is put behind to run at a later time, which takes a C
    compiler inside. Not variables, too: what starts and ends a sandbox's commands must know the time."""
    zone = {"TZ": SHIFTED_ZONE}
    argv = ["/usr/bin/env", "cc", "-shared", "-fPIC", "-O1", "-o", _CLOCK, f"{INPUTS_DIR}/swefactory_clock.c", "-ldl"]
    if sandbox.run(argv, timeout_s=60, cwd="/").exit_code != 0:
        return zone, []
    return zone, ["/usr/bin/env", f"LD_PRELOAD={_CLOCK}", f"SWEFACTORY_CLOCK_SHIFT_S={CLOCK_SHIFT_S}"]


def _conditions(
    spec: EvaluationSpec, found: Mapping[str, str | float], started: float
) -> tuple[Conditions, Mapping[str, str | float]]:
    """What the process itself measured: a CPU quota that nobody enforces, or a zone that did not change, is none."""
    shift_s = round(float(found.get("now", started)) - started, 1)
    is_slow = spec.is_slow and float(found.get("cpu_share", 1.0)) <= _SLOW_SHARE
    is_shifted = spec.is_shifted and (found.get("utc_offset") == "+1400" or shift_s > CLOCK_SHIFT_S / 2)
    measured: dict[str, str | float] = {
        "hash_seed": spec.hash_seed,
        "clock_shift_s": shift_s if shift_s > CLOCK_SHIFT_S / 2 else 0.0,
        **{name: found[name] for name in ("utc_offset", "cpu_share") if name in found},
    }
    if spec.is_online:
        measured["network"] = "out" if found.get("has_route") else "none"
    return Conditions(spec.order, spec.hash_seed, is_slow, is_shifted, spec.is_online), measured


def _read(sandbox: Sandbox, ended: CommandResult, key: str, canary: str) -> RunRecord | Void:
    if ended.out_of_memory:
        return Void(VoidCause.OUT_OF_MEMORY, "the tests needed more memory than the sandbox has")
    try:
        content = sandbox.read(_RECORD, _RECORD_BYTES)
    except FileNotFoundError:
        said = ended.output.decode(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
        return Void(VoidCause.NO_RECORD, f"there is no record; the process ended with {ended.exit_code}: {said[0]}")
    except InfrastructureError as error:  # a record that is too large, too, is no reason to run this for ever
        return Void(VoidCause.UNREADABLE, str(error))
    return read_record(content, key, canary, ended.exit_code)


def _completed(
    record: RunRecord, spec: EvaluationSpec, ended: CommandResult, log: bytes, n_files: int
) -> TestRunResult:
    notes = []
    if n_files < len(spec.test_files):
        notes.append(f"{len(spec.test_files) - n_files} of {len(spec.test_files)} test files are not in the tree")
    if record.ignored_options:
        notes.append(f"options of absent plugins left out: {' '.join(record.ignored_options)}")
    return TestRunResult(
        status=RunStatus.COMPLETED,
        order=spec.order,
        detail="; ".join(notes),
        exit_code=ended.exit_code,
        n_collected=record.n_collected,
        outcomes=record.outcomes,
        collection_errors=record.collection_errors,
        duration_s=ended.duration_s,
        log=log,
        versions=record.versions,
    )


# ---------------------------------------------------------------- patches


def restricted(
    patch: str, test_patch: str, tree: Path, lock: str, test_command: tuple[str, ...] = PYTEST
) -> RestrictedPatch:
    """The part of `patch` that may be graded on the base commit's `tree`. Raises Rejected(PATCH_DOES_NOT_APPLY)."""
    try:
        return restrict(patch, test_patch, reader(tree), installed_modules(lock), scripts(test_command))
    except PatchUnreadable as error:
        raise Rejected(RejectReason.PATCH_DOES_NOT_APPLY, str(error)) from error


def reader(tree: Path) -> Callable[[str], str | None]:
    """Reads text files of a tree: None for a link, a folder, a large file and what is not there."""

    def base_text(path: str) -> str | None:
        file = tree / path
        if not file.is_file() or file.is_symlink() or file.stat().st_size > _BASE_TEXT_BYTES:
            return None
        return file.read_bytes().decode("utf-8", "surrogateescape")

    return base_text


def installed_modules(lock: str) -> frozenset[str]:
    """Names under which the packages of a lock are likely imported."""
    names = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*==", lock, re.MULTILINE)
    modules = {re.sub(r"[-.]+", "_", name).lower() for name in names}
    return frozenset(modules | {"attr"} if "attrs" in modules else modules)
