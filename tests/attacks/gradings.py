"""An instance to attack, and a patch, given as the files it changes, through the grade stage or past its gate."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from swefactory.checkouts import seal
from swefactory.evaluation import TestRunResult, evaluate
from swefactory.grading import grade
from swefactory.instance_runs import EvaluatedInstance, base_evaluation
from swefactory.protocols import ProjectLayout
from swefactory.sandbox_protocols import EnvironmentSpec
from swefactory.stage import Services
from swefactory.stages.grades import GradeInput, GradeOutput, work
from tests.attacks.hostile_patches import BASE, TEST_PATCH
from tests.fake_sandbox import diff_of

Files = Mapping[str, str | None]


def patch_of(files: Files) -> str:
    after = {**BASE, **{path: text for path, text in files.items() if text is not None}}
    return diff_of(BASE, {path: text for path, text in after.items() if path not in files or files[path] is not None})


def attacked(services: Services, environment: EnvironmentSpec, upstream: Path, **facts: Any) -> EvaluatedInstance:
    """An instance on the files at `upstream`, sealed, in an environment that nothing else needs to know of."""
    name = upstream.name
    return EvaluatedInstance(
        instance_id=f"acme__{name}-7",
        repository=f"acme/{name}",
        clone_url=str(upstream),
        base_commit=seal(upstream),
        layout=ProjectLayout(name, "1"),
        environment_digest=environment.digest,
        python_version=environment.python_version,
        lock_digest=services.artifacts.put(environment.lock.encode(), "text/plain").digest,
        system_packages=(),
        environment_variables={},
        **facts,
    )


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
