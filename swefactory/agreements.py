"""How rollouts of one instance agree with tests: with its PASS_TO_PASS, and with tests that the agents wrote.

    pass_to_pass    base + a rollout's patch, the base commit's own test files: which of PASS_TO_PASS still pass
    reproduction    base + a rollout's patch + an author's tests: which of those hold that fail on base and hold with
                    the author's own patch, so that they reproduce something

One property: nothing of the gold solution is used. The test_patch is never applied: a run with it would say through
tests that cannot be collected who knows the names that the hidden tests import. Of an instance only the names of its
test files and PASS_TO_PASS are known here.

A patch that is empty, cannot be read, ends its run or takes too long agrees with nothing. Tests are pytest's by name
(test_*.py, *_test.py) among the files of the author's patch; scripts that are none are not looked at.
"""

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from db.enums import CriticKind, Outcome, RejectReason, RunStatus
from swefactory.errors import InfrastructureError, Rejected
from swefactory.evaluation import EvaluationSpec, TestRunResult, evaluate, installed_modules, reader
from swefactory.file_kinds import test_folder
from swefactory.instance_runs import EvaluatedInstance, RunServices, base_evaluation
from swefactory.model_patches import FileChange, PatchUnreadable, changes, restrict
from swefactory.runners import scripts

_NAMES = ("test_*.py", "*_test.py")
_N_SHOWN = 5


@dataclass(frozen=True)
class Candidate:
    """A rollout to choose from."""

    rollout_id: int
    model_patch: str


@dataclass(frozen=True)
class Agreement:
    """How `rollout_id` agrees with the tests that `evidence_id` stands for: the author's, or its own row. `score` None:
    there is no such test."""

    kind: CriticKind
    rollout_id: int
    evidence_id: int
    score: float | None
    detail: Mapping[str, object] = field(default_factory=dict)


def agreements(
    services: RunServices, instance: EvaluatedInstance, candidates: Sequence[Candidate], kinds: Collection[CriticKind]
) -> list[Agreement]:
    """Every agreement of these kinds among the candidates, which are of one agent. Raises InfrastructureError when the
    base commit's own tests give no evidence here, Rejected(BASE_COMMIT_MISSING)."""
    spec, lock = base_evaluation(services, replace(instance, patch="", test_patch="", fail_to_pass=()))
    bench = _Bench(services, spec, lock)
    parts = [_parts(bench, each) for each in candidates]
    found: list[Agreement] = []
    if CriticKind.PASS_TO_PASS in kinds:
        found += _kept(bench, instance, parts)
    if CriticKind.REPRODUCTION in kinds:
        for author in parts:
            found += _reproduced(bench, author, parts)
    return found


@dataclass(frozen=True)
class _Parts:
    """A patch taken apart: what may be graded, and the tests it brings. `flaw` says why the first is of no use."""

    rollout_id: int
    source: str
    tests: str
    test_files: tuple[str, ...]
    flaw: str


class _Bench:
    """Runs states of the tree, each once."""

    def __init__(self, services: RunServices, spec: EvaluationSpec, lock: str) -> None:
        self._services, self.spec, self.lock = services, spec, lock
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], TestRunResult] = {}

    def passed(self, patches: Iterable[str], test_files: tuple[str, ...]) -> tuple[frozenset[str], str]:
        """The ids that pass with these patches, and why there is none, where the run is no evidence."""
        wanted = (tuple(patch for patch in patches if patch), test_files)
        if wanted not in self._known:
            self._known[wanted] = self._run(*wanted)
        result = self._known[wanted]
        if result.status is not RunStatus.COMPLETED:
            return frozenset(), result.detail or result.status.value
        return frozenset(found.test_id for found in result.outcomes if found.outcome is Outcome.PASSED), ""

    def _run(self, patches: tuple[str, ...], test_files: tuple[str, ...]) -> TestRunResult:
        try:
            return evaluate(self._services, replace(self.spec, patches=patches, test_files=test_files))
        except Rejected as verdict:
            if verdict.reason is not RejectReason.PATCH_DOES_NOT_APPLY:
                raise
            return TestRunResult(RunStatus.VOID, self.spec.order, verdict.detail)


def _parts(bench: _Bench, candidate: Candidate) -> _Parts:
    spec = bench.spec
    steering = {*scripts(spec.test_command), *spec.test_files, *filter(None, map(test_folder, spec.test_files))}
    try:
        found = list(changes(candidate.model_patch))
        allowed = restrict(candidate.model_patch, "", reader(spec.tree), installed_modules(bench.lock), steering)
    except PatchUnreadable as error:
        return _Parts(candidate.rollout_id, "", "", (), str(error))
    tests = [change for change in found if _is_test(change)]
    files = tuple(sorted(path for change in tests for path in change.paths))
    flaw = "" if allowed.patch.strip() else "the patch is empty"
    return _Parts(candidate.rollout_id, allowed.patch, "".join(change.text for change in tests), files, flaw)


def _is_test(change: FileChange) -> bool:
    """Whether it writes a test module, which never takes part in grading and so is in no source part."""
    names = [PurePosixPath(path).name for path in change.paths]
    writes = change.hunks is not None and any(mark == "+" for hunk in change.hunks for mark, _ in hunk.lines)
    return writes and all(any(fnmatch.fnmatchcase(name, known) for known in _NAMES) for name in names)


# ---------------------------------------------------------------- PASS_TO_PASS


def _kept(bench: _Bench, instance: EvaluatedInstance, candidates: Sequence[_Parts]) -> list[Agreement]:
    """Of the PASS_TO_PASS that pass on the base commit, the share that still do."""
    files = tuple(path for path in instance.test_files if (bench.spec.tree / path).is_file())
    before, why_not = bench.passed((), files) if files else (frozenset[str](), "")
    if why_not:
        raise InfrastructureError(
            f"{instance.instance_id}: the base commit's own tests give no evidence here ({why_not}), so no rollout can "
            "be held against PASS_TO_PASS; look at the machine and the environment, then retry the job"
        )
    wanted = before & frozenset(instance.pass_to_pass)
    return [_held(bench, CriticKind.PASS_TO_PASS, each, each.rollout_id, wanted, (), files) for each in candidates]


# ---------------------------------------------------------------- reproduction tests


def _reproduced(bench: _Bench, author: _Parts, candidates: Sequence[_Parts]) -> list[Agreement]:
    """How each candidate agrees with what the author's tests reproduce."""
    wanted, why_not = _reproductions(bench, author)
    if not wanted:
        return [
            Agreement(CriticKind.REPRODUCTION, each.rollout_id, author.rollout_id, None, {"none": why_not})
            for each in candidates
        ]
    tests = (author.tests,)
    return [
        _held(bench, CriticKind.REPRODUCTION, each, author.rollout_id, wanted, tests, author.test_files)
        for each in candidates
    ]


def _reproductions(bench: _Bench, author: _Parts) -> tuple[frozenset[str], str]:
    """The author's tests that fail on base and hold with its own patch; or why there are none."""
    if author.flaw or not author.test_files:
        return frozenset(), author.flaw or "it wrote no test"
    after, why_not = bench.passed((author.source, author.tests), author.test_files)
    if not after:
        return frozenset(), why_not or "its tests do not hold with its own patch"
    before, why_not = bench.passed((author.tests,), author.test_files)
    if why_not:
        return frozenset(), f"its tests end their run on the base commit: {why_not}"
    return after - before, "its tests pass on the base commit already"


def _held(
    bench: _Bench,
    kind: CriticKind,
    candidate: _Parts,
    evidence_id: int,
    wanted: frozenset[str],
    tests: tuple[str, ...],
    files: tuple[str, ...],
) -> Agreement:
    """The share of `wanted` that passes with the candidate's patch; 1 where nothing is wanted of a usable patch."""
    passed, flaw = (frozenset[str](), candidate.flaw)
    if not flaw and wanted:
        passed, flaw = bench.passed((candidate.source, *tests), files)
    missed = sorted(wanted - passed)
    detail: dict[str, object] = {"n_tests": len(wanted), "n_passed": len(wanted) - len(missed)}
    if missed:
        detail["missed"] = missed[:_N_SHOWN]
    if flaw:
        detail["flaw"] = flaw[:500]
    share = 0.0 if flaw else (len(wanted) - len(missed)) / len(wanted) if wanted else 1.0
    return Agreement(kind, candidate.rollout_id, evidence_id, share, detail)
