"""What validation and grading share: a task instance as it is evaluated, and test runs as rows.

One property: both build the same tree from the same inputs, so a solution equal to the gold patch is graded as the
gold patch was validated.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import func, insert
from sqlmodel import Session, select

from db.enums import RunState, Tier
from db.models import Artifact, Environment, Repository, TaskInstance, TestOutcome, TestRun
from swefactory.artifacts import digest_of
from swefactory.errors import InfrastructureError
from swefactory.evaluation import EvaluationServices, EvaluationSpec, TestRunResult
from swefactory.protocols import ArtifactRef, ArtifactStore, ProjectLayout
from swefactory.runners import PYTEST
from swefactory.sandbox_protocols import EnvironmentSpec

LOG_MEDIA_TYPE = "text/plain; charset=utf-8"


class RunServices(EvaluationServices, Protocol):
    """What an evaluation and the storing of its log need of Services."""

    @property
    def artifacts(self) -> ArtifactStore: ...


@dataclass(frozen=True)
class EnvironmentFacts:
    """An environment as the catalog holds it."""

    digest: str
    python_version: str
    lock_digest: str
    system_packages: tuple[str, ...]


@dataclass(frozen=True)
class PublishedTests:
    """The lists that an imported instance came with; a validation holds it to them."""

    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]


@dataclass(frozen=True)
class EvaluatedInstance:
    """A task instance with all that an evaluation of it needs."""

    instance_id: str
    repository: str
    clone_url: str
    base_commit: str
    patch: str
    test_patch: str
    test_files: tuple[str, ...]
    layout: ProjectLayout
    environment_digest: str
    python_version: str
    lock_digest: str
    system_packages: tuple[str, ...]
    environment_variables: Mapping[str, str]
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    test_command: tuple[str, ...] = PYTEST
    tier: Tier | None = None  # of its next validation; None: the setting's
    build: EnvironmentFacts | None = None  # what builds its own extension modules
    published: PublishedTests | None = None  # None: mined here


@dataclass(frozen=True)
class StoredRun:
    """A test run whose log is in the artifact store; `log` is None when nothing ran."""

    state: RunState
    result: TestRunResult
    log: ArtifactRef | None


def load_instance(session: Session, task_instance_id: int) -> EvaluatedInstance:
    """The instance's row with its repository and environment. Raises InfrastructureError when it has none."""
    instance = session.get_one(TaskInstance, task_instance_id)
    if instance.environment_id is None:
        raise InfrastructureError(f"{instance.instance_id} has no environment yet; run its environment job first")
    repository = session.get_one(Repository, instance.repository_id)
    environment = session.get_one(Environment, instance.environment_id)
    return EvaluatedInstance(
        instance_id=instance.instance_id,
        repository=repository.name,
        clone_url=repository.clone_url,
        base_commit=instance.base_commit,
        patch=instance.patch,
        test_patch=instance.test_patch,
        test_files=tuple(instance.test_files),
        layout=layout_from(instance.project),
        environment_digest=environment.digest,
        python_version=environment.python_version,
        lock_digest=environment.lock_digest,
        system_packages=tuple(environment.system_packages),
        environment_variables=(instance.recipe or environment.recipe).get("environment_variables") or {},
        fail_to_pass=tuple(instance.fail_to_pass),
        pass_to_pass=tuple(instance.pass_to_pass),
        test_command=tuple(instance.test_command) or PYTEST,
        tier=instance.tier,
        build=_build_facts(session, instance),
        published=published_tests(instance),
    )


def published_tests(instance: TaskInstance) -> PublishedTests | None:
    """What an import said of its tests; None for an instance that was mined here."""
    told = instance.published
    return PublishedTests(tuple(told["FAIL_TO_PASS"]), tuple(told["PASS_TO_PASS"])) if told else None


def _build_facts(session: Session, instance: TaskInstance) -> EnvironmentFacts | None:
    if instance.build_environment_id is None:
        return None
    found = session.get_one(Environment, instance.build_environment_id)
    return EnvironmentFacts(found.digest, found.python_version, found.lock_digest, tuple(found.system_packages))


def layout_from(project: Mapping[str, Any]) -> ProjectLayout:
    """The layout that task_instance.project holds as JSON."""
    return ProjectLayout(
        name=project["name"],
        version=project["version"],
        source_roots=tuple(project["source_roots"]),
        entry_points=project["entry_points"],
        requires=tuple(project["requires"]),
        generated_files=project.get("generated_files", {}),
        folder=project.get("folder", "."),
        neighbours=project.get("neighbours", {}),
    )


def base_evaluation(services: RunServices, instance: EvaluatedInstance) -> tuple[EvaluationSpec, str]:
    """An evaluation of the base commit with no patch yet, and the lock's text. Raises Rejected(BASE_COMMIT_MISSING)."""
    mirror = services.checkouts.mirror(instance.repository, instance.clone_url)
    lock = services.artifacts.get(instance.lock_digest).decode()
    spec = EvaluationSpec(
        environment=EnvironmentSpec(
            instance.environment_digest, instance.python_version, lock, instance.system_packages
        ),
        tree=services.checkouts.tree(instance.repository, mirror, instance.base_commit),
        layout=instance.layout,
        patches=(),
        test_files=instance.test_files,
        timeout_s=services.settings.test_timeout_s,
        environment_variables=instance.environment_variables,
        test_command=instance.test_command,
        build=_build_spec(services, instance.build) if instance.build else None,
    )
    return spec, lock


def _build_spec(services: RunServices, facts: EnvironmentFacts) -> EnvironmentSpec:
    lock = services.artifacts.get(facts.lock_digest).decode()
    return EnvironmentSpec(facts.digest, facts.python_version, lock, facts.system_packages)


def stored(services: RunServices, state: RunState, result: TestRunResult) -> StoredRun:
    """The run with its log put into the artifact store."""
    return StoredRun(state, result, services.artifacts.put(result.log, LOG_MEDIA_TYPE) if result.log else None)


# ---------------------------------------------------------------- rows


def save_runs(
    session: Session, runs: Sequence[StoredRun], *, validation_id: int | None = None, rollout_id: int | None = None
) -> None:
    """Adds a test_run row and its outcomes for each run; numbers go on from those the owner has for that state."""
    save_artifacts(session, (run.log for run in runs if run.log))
    for run in runs:
        row = TestRun(
            validation_id=validation_id,
            rollout_id=rollout_id,
            state=run.state,
            number=_next_number(session, run.state, validation_id, rollout_id),
            status=run.result.status,
            detail=run.result.detail,
            order=run.result.order,
            conditions=dict(run.result.measured),
            exit_code=run.result.exit_code,
            n_collected=run.result.n_collected,
            duration_s=run.result.duration_s,
            log_digest=run.log.digest if run.log else None,
        )
        session.add(row)
        session.flush()
        _save_outcomes(session, row, run.result)


def _next_number(session: Session, state: RunState, validation_id: int | None, rollout_id: int | None) -> int:
    query = select(func.max(TestRun.number)).where(
        TestRun.validation_id == validation_id, TestRun.rollout_id == rollout_id, TestRun.state == state
    )
    return (session.exec(query).one() or 0) + 1


def _save_outcomes(session: Session, row: TestRun, result: TestRunResult) -> None:
    rows = [
        {
            "test_run_id": row.id,
            "test_id": found.test_id,
            "test_digest": digest_of(found.test_id.encode("utf-8", "surrogatepass")),
            "outcome": found.outcome,
            "duration_s": found.duration_s,
            "message": found.message,
        }
        for found in result.outcomes
    ]
    if rows:
        session.execute(insert(TestOutcome), rows)


def save_artifacts(session: Session, refs: Iterable[ArtifactRef]) -> None:
    """Adds the artifacts that the catalog does not know yet."""
    wanted = {ref.digest: ref for ref in refs}
    query = select(Artifact.digest).where(Artifact.digest.in_(wanted))  # type: ignore[attr-defined]
    for digest in sorted(wanted.keys() - set(session.exec(query))):
        ref = wanted[digest]
        session.add(Artifact(digest=digest, size_bytes=ref.size_bytes, media_type=ref.media_type))
    session.flush()
