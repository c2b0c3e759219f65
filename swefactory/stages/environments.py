"""The environment stage: a candidate's base commit gets a recipe, a lock, an environment that stands, and a smoke test.

    tree ─► detect ─► climb the ladder ─► materialise ─► smoke test in a sandbox ─► saved
              ▲              ▲  named repairs: recipes.smoke_repairs  │
              └ older_python └────────────────────────────────────────┘

One property: what is saved has stood: in a sealed sandbox of it the package imports and the test files collect, as they
are after the fix, with the project's own extension modules, built in an environment of their own. What has not says
which step failed, keeps that step's log, and what was tried before.
"""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from db.enums import InstanceStatus, RejectReason, StageName
from db.models import Artifact, Environment, EnvironmentBuild, Repository, TaskInstance
from swefactory.build_environments import BuildEnvironment
from swefactory.checkouts import apply_patch, copy_tree, run_git
from swefactory.errors import Rejected
from swefactory.protocols import ArtifactRef, Attempt, Recipe
from swefactory.recipes.lock import Locked
from swefactory.recipes.python import detect, spanning
from swefactory.recipes.python_names import minor_key
from swefactory.recipes.smoke_repairs import wants_older_python
from swefactory.recipes.versions import from_tags
from swefactory.sandbox_protocols import EnvironmentSpec, Materialised
from swefactory.stage import NextJob, Saved, Services, Stage
from swefactory.standing import EnvironmentRejected, Standing, stand

_MAX_OLDER = 2


@dataclass(frozen=True)
class EnvironmentInput:
    """A candidate, as far as its environment needs to know it."""

    instance_id: str
    repository: str
    clone_url: str
    base_commit: str
    test_patch: str
    test_files: tuple[str, ...]
    patch: str = ""


@dataclass(frozen=True)
class BuildOutput:
    """What builds the project's own extension modules: an environment of its own."""

    environment: BuildEnvironment
    lock: ArtifactRef


@dataclass(frozen=True)
class EnvironmentOutput:
    """An environment that stood, and how this instance's checkout is made importable in it (`recipe.layout`)."""

    recipe: Recipe
    spec: EnvironmentSpec
    n_packages: int
    resolved_as_of: datetime
    lock: ArtifactRef
    sandbox: str
    materialised: Materialised
    build: BuildOutput | None = None
    logs: tuple[ArtifactRef, ...] = ()  # of what went wrong and did not matter


def load(session: Session, subject_id: int) -> EnvironmentInput:
    """Reads the task instance `subject_id` and its repository."""
    instance = session.get_one(TaskInstance, subject_id)
    repository = session.get_one(Repository, instance.repository_id)
    return EnvironmentInput(
        instance_id=instance.instance_id,
        repository=repository.name,
        clone_url=repository.clone_url,
        base_commit=instance.base_commit,
        test_patch=instance.test_patch,
        test_files=tuple(instance.test_files),
        patch=instance.patch,
    )


def work(services: Services, subject: EnvironmentInput) -> EnvironmentOutput:
    """Raises Rejected(BASE_COMMIT_MISSING | NOT_PYTHON_PROJECT | NO_INTERPRETER | PATCH_DOES_NOT_APPLY),
    EnvironmentRejected(DEPENDENCIES_UNRESOLVABLE | BUILD_FAILED | COLLECTION_ERROR), Transient when the registry or
    the repository cannot be reached."""
    mirror, tree = _tree(services, subject)
    pythons = tuple(services.sandboxes.pythons())
    earlier: tuple[Attempt, ...] = ()
    with services.checkouts.scratch() as folder:
        after = Path(folder)
        _apply(after, tree, subject)
        while True:
            found = detect(
                tree,
                as_of=commit_date(mirror, subject.base_commit),
                pythons=pythons,
                fallback_version=from_tags(mirror, subject.base_commit),
                test_files=subject.test_files,
            )
            recipe = spanning(found, after)
            try:
                trees, asked = (tree, after), replace(recipe, attempts=earlier)
                standing = stand(services, subject.instance_id, subject.test_files, trees, asked)
                return _output(services, standing)
            except EnvironmentRejected as verdict:
                pythons = _older(pythons, recipe, verdict)
                earlier = (*verdict.recipe.attempts, _older_python(recipe, verdict))


def _older(pythons: tuple[str, ...], recipe: Recipe, verdict: EnvironmentRejected) -> tuple[str, ...]:
    """The interpreters below the one that failed, where its words ask for an older one; else raises the verdict."""
    n_before = sum(attempt.name == "older_python" for attempt in verdict.recipe.attempts)
    older = [v for v in pythons if minor_key(v) < minor_key(recipe.python_version) and v[0] == recipe.python_version[0]]
    if not older or n_before >= _MAX_OLDER or not wants_older_python(verdict.log_text):
        raise verdict
    return tuple(older)


def _older_python(recipe: Recipe, verdict: EnvironmentRejected) -> Attempt:
    said = wants_older_python(verdict.log_text)
    return Attempt("repair", "older_python", worked=True, detail=f"below {recipe.python_version}: {said}")


def _output(services: Services, standing: Standing) -> EnvironmentOutput:
    locked, build = standing.climbed.locked, standing.build
    return EnvironmentOutput(
        recipe=replace(standing.climbed.recipe, repairs=locked.repairs),
        spec=standing.spec,
        n_packages=locked.n_packages,
        resolved_as_of=locked.as_of,
        lock=_lock(services, locked),
        sandbox=services.sandboxes.name,
        materialised=standing.materialised,
        build=BuildOutput(build, _lock(services, build.locked)) if build else None,
        logs=standing.logs,
    )


def _lock(services: Services, locked: Locked) -> ArtifactRef:
    return services.artifacts.put(locked.text.encode(), "text/plain")


def commit_date(mirror: Path, commit: str) -> datetime:
    """When `commit` was committed (not authored): what was published by then could be used."""
    return datetime.fromtimestamp(int(run_git(mirror, "show", "-s", "--format=%ct", commit).split()[-1]), tz=UTC)


def _tree(services: Services, subject: EnvironmentInput) -> tuple[Path, Path]:
    mirror = services.checkouts.mirror(subject.repository, subject.clone_url)
    if not services.checkouts.commit_exists(mirror, subject.base_commit):
        mirror = services.checkouts.mirror(subject.repository, subject.clone_url, fetch=True)
    return mirror, services.checkouts.tree(subject.repository, mirror, subject.base_commit)


def _apply(after: Path, tree: Path, subject: EnvironmentInput) -> None:
    """Base, the fix and its tests into `after`."""
    copy_tree(tree, after)
    for name, patch in (("patch", subject.patch), ("test_patch", subject.test_patch)):
        try:
            if patch:
                apply_patch(after, patch)
        except ValueError as error:
            detail = f"the {name} of {subject.instance_id} does not apply to {subject.base_commit}: {error}"
            raise Rejected(RejectReason.PATCH_DOES_NOT_APPLY, detail) from error


# ---------------------------------------------------------------- save


def save(session: Session, subject_id: int, output: EnvironmentOutput | Rejected) -> Saved:
    """Writes the environment, its build and its lock's artifact, and points the instance at them."""
    instance = session.get_one(TaskInstance, subject_id)
    if isinstance(output, Rejected):
        instance.status = InstanceStatus.REJECTED
        instance.reject_reason, instance.reject_detail = output.reason, output.detail
        if isinstance(output, EnvironmentRejected):
            instance.recipe = {**recipe_as_json(output.recipe), "step": output.step, "log_digest": output.log.digest}
            _artifact(session, output.log)
        session.add(instance)
        return Saved(rejected=output)
    instance.environment_id = _saved(
        session, output, _Made(output.recipe, output.spec, output.lock, output.n_packages, output.materialised)
    )
    instance.build_environment_id = None
    if output.build is not None:
        made = output.build.environment
        instance.build_environment_id = _saved(
            session,
            output,
            _Made(made.recipe, made.spec, output.build.lock, made.locked.n_packages, made.materialised),
        )
    for log in output.logs:
        _artifact(session, log)
    instance.environment_setup_commit = instance.environment_setup_commit or instance.base_commit
    instance.project = asdict(output.recipe.layout)
    instance.recipe = recipe_as_json(output.recipe)
    instance.test_command = list(output.recipe.test_command)
    instance.version = output.recipe.layout.version
    instance.status, instance.reject_reason, instance.reject_detail = InstanceStatus.CANDIDATE, None, ""
    session.add(instance)
    return Saved(next_jobs=(NextJob(StageName.VALIDATION, subject_id),))


@dataclass(frozen=True)
class _Made:
    recipe: Recipe
    spec: EnvironmentSpec
    lock: ArtifactRef
    n_packages: int
    materialised: Materialised


def _saved(session: Session, output: EnvironmentOutput, made: _Made) -> int:
    """The id of the environment's row, with its build and its lock written."""
    environment_id = _environment(session, output, made)
    _build(session, environment_id, output.sandbox, made.materialised)
    _artifact(session, made.lock)
    return environment_id


def _environment(session: Session, output: EnvironmentOutput, made: _Made) -> int:
    """The environment's row; another worker may insert the same digest at the same moment."""
    query = select(Environment).where(Environment.digest == made.spec.digest)
    found = session.exec(query).first()
    if found is None:
        row = Environment(
            digest=made.spec.digest,
            python_version=made.spec.python_version,
            lock_digest=made.lock.digest,
            recipe=recipe_as_json(made.recipe),
            system_packages=list(made.spec.system_packages),
            n_packages=made.n_packages,
            resolved_as_of=output.resolved_as_of,
        )
        _insert(session, row)
        found = session.exec(query).one()
    assert found.id is not None
    return found.id


def _build(session: Session, environment_id: int, sandbox: str, made: Materialised) -> None:
    query = select(EnvironmentBuild).where(
        EnvironmentBuild.environment_id == environment_id, EnvironmentBuild.sandbox == sandbox
    )
    row = session.exec(query).first()
    if row is None:
        _insert(
            session,
            EnvironmentBuild(
                environment_id=environment_id,
                sandbox=sandbox,
                locator=made.locator,
                size_bytes=made.size_bytes,
                unique_bytes=made.unique_bytes,
                shared_bytes=made.shared_bytes,
                duration_s=made.duration_s,
                last_used_at=datetime.now(UTC),
            ),
        )
        return
    row.last_used_at, row.evicted_at = datetime.now(UTC), None
    if made.built:
        row.unique_bytes, row.shared_bytes = made.unique_bytes, made.shared_bytes
        row.locator, row.size_bytes, row.duration_s = made.locator, made.size_bytes, made.duration_s
        row.built_at = datetime.now(UTC)
    session.add(row)


def _artifact(session: Session, ref: ArtifactRef) -> None:
    if session.exec(select(Artifact).where(Artifact.digest == ref.digest)).first() is None:
        _insert(session, Artifact(digest=ref.digest, size_bytes=ref.size_bytes, media_type=ref.media_type))


def _insert(session: Session, row: Environment | EnvironmentBuild | Artifact) -> None:
    """Inserts, unless another worker just did: these rows are named by their content, either one is right."""
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return


def recipe_as_json(recipe: Recipe) -> dict[str, object]:
    """The recipe as JSON values, without the layout, which belongs to one instance."""
    values = asdict(recipe)
    del values["layout"]
    return {**values, "as_of": recipe.as_of.isoformat()}


STAGE: Stage[EnvironmentInput, EnvironmentOutput] = Stage(StageName.ENVIRONMENT, load, work, save)
