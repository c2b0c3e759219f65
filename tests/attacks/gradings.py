"""A patch, given as the files it changes, through the grade stage or past its gate."""

from collections.abc import Mapping
from dataclasses import replace

from swefactory.evaluation import TestRunResult, evaluate
from swefactory.grading import grade
from swefactory.instance_runs import EvaluatedInstance, base_evaluation
from swefactory.stage import Services
from swefactory.stages.grades import GradeInput, GradeOutput, work
from tests.attacks.hostile_patches import BASE, TEST_PATCH
from tests.fake_sandbox import diff_of

Files = Mapping[str, str | None]


def patch_of(files: Files) -> str:
    after = {**BASE, **{path: text for path, text in files.items() if text is not None}}
    return diff_of(BASE, {path: text for path, text in after.items() if path not in files or files[path] is not None})


def graded(services: Services, instance: EvaluatedInstance, files: Files) -> GradeOutput:
    """The patch through the whole grade stage."""
    return work(services, GradeInput(1, patch_of(files), instance))


def ungated(
    services: Services, instance: EvaluatedInstance, files: Files, with_tests: bool = True
) -> tuple[TestRunResult, bool]:
    """The patch with nothing left out: (the run, whether it would be resolved)."""
    spec, _ = base_evaluation(services, instance)
    patches = (patch_of(files), TEST_PATCH) if with_tests else (patch_of(files),)
    result = evaluate(services, replace(spec, patches=patches))
    outcomes = {found.test_id: found.outcome for found in result.outcomes}
    is_resolved = grade(outcomes, instance.fail_to_pass, instance.pass_to_pass).resolved
    return result, is_resolved


def why(output: GradeOutput) -> str:
    return output.runs[-1].result.detail


def scores(output: GradeOutput) -> bool:
    """Whether a rate or an export counts it: resolved, and nobody has to look first (see db/queries.sql, exports)."""
    return output.resolved and not output.suspicious
