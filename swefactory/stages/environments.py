"""The environment stage: a candidate's base commit gets a recipe, a lock, an environment that stands, and a smoke test.

    tree ─► detect ─► climb the ladder ─► materialise ─► smoke test in a sandbox ─► saved
              ▲              ▲  named repairs: recipes.smoke_repairs  │
              └ older_python └────────────────────────────────────────┘

One property: what is saved has stood: in a sealed sandbox of it the package imports and the test files collect, as they
are after the fix. What has not says which step failed, keeps that step's log, and what was tried before.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import canonicalize_name
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from db.models import (
    Artifact,
    Environment,
    EnvironmentBuild,
    InstanceStatus,
    RejectReason,
    Repository,
    StageName,
    TaskInstance,
)
from swefactory.checkouts import apply_patch, copy_tree, run_git
from swefactory.errors import Rejected
from swefactory.protocols import ArtifactRef, Attempt, EnvironmentSpec, Materialised, Recipe
from swefactory.recipes.files import read_text
from swefactory.recipes.imports import needed_by
from swefactory.recipes.ladder import Climbed, LadderFailed, climb
from swefactory.recipes.lock import package_names, spec_of
from swefactory.recipes.python import detect
from swefactory.recipes.python_names import minor_key
from swefactory.recipes.smoke_repairs import REPAIRS, repaired, wants_older_python, with_requirements
from swefactory.recipes.versions import from_tags
from swefactory.smoke import Complaint, smoke
from swefactory.stage import NextJob, Saved, Services, Stage

_MAX_SMOKE_REPAIRS = 5
_MAX_OLDER = 2
_LOG_MEDIA_TYPE = "text/plain; charset=utf-8"
_OURS = frozenset(
    (*(repair.name for repair in REPAIRS), "older_python", "fix_requirements", "test imports")
)  # attempts that outlive a climb, which writes its own anew
_REASONS = {
    "resolve": RejectReason.DEPENDENCIES_UNRESOLVABLE,
    "build": RejectReason.BUILD_FAILED,
    "import": RejectReason.BUILD_FAILED,
    "pytest": RejectReason.BUILD_FAILED,
    "collect": RejectReason.COLLECTION_ERROR,
}


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
class EnvironmentOutput:
    """An environment that stood, and how this instance's checkout is made importable in it (`recipe.layout`)."""

    recipe: Recipe
    spec: EnvironmentSpec
    n_packages: int
    resolved_as_of: datetime
    lock: ArtifactRef
    sandbox: str
    materialised: Materialised


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
            recipe = detect(
                tree,
                as_of=commit_date(mirror, subject.base_commit),
                pythons=pythons,
                fallback_version=from_tags(mirror, subject.base_commit),
            )
            try:
                return _stand(services, subject, after, replace(recipe, attempts=earlier))
            except EnvironmentRejected as verdict:
                pythons = _older(pythons, recipe, verdict)
                earlier = (*verdict.recipe.attempts, _older_python(recipe, verdict))


def _older(pythons: tuple[str, ...], recipe: Recipe, verdict: "EnvironmentRejected") -> tuple[str, ...]:
    """The interpreters below the one that failed, where its words ask for an older one; else raises the verdict."""
    n_before = sum(attempt.name == "older_python" for attempt in verdict.recipe.attempts)
    older = [v for v in pythons if minor_key(v) < minor_key(recipe.python_version) and v[0] == recipe.python_version[0]]
    if not older or n_before >= _MAX_OLDER or not wants_older_python(verdict.log_text):
        raise verdict
    return tuple(older)


def _older_python(recipe: Recipe, verdict: "EnvironmentRejected") -> Attempt:
    said = wants_older_python(verdict.log_text)
    return Attempt("repair", "older_python", worked=True, detail=f"below {recipe.python_version}: {said}")


def _stand(services: Services, subject: EnvironmentInput, after: Path, recipe: Recipe) -> EnvironmentOutput:
    """Resolves, builds and tries the recipe, repaired where a named repair answers what fails."""
    climbed = _climb(services, subject, recipe)
    climbed = _with_test_imports(services, subject, after, climbed)
    n_repairs = 0
    while True:
        spec = spec_of(climbed.recipe, climbed.locked)
        made, complaint = _tried(services, subject, after, climbed, spec)
        if made is not None and complaint is None:
            return _output(services, climbed, spec, made)
        assert complaint is not None
        better = repaired(climbed.recipe, complaint.text, package_names(climbed.locked.text))
        better = better or _as_the_fix_asks(services, after, climbed.recipe)
        if better is None or n_repairs == _MAX_SMOKE_REPAIRS:
            raise _rejected(services, subject, climbed.recipe, complaint)
        climbed, n_repairs = _climb_again(services, subject, better, complaint), n_repairs + 1


def _as_the_fix_asks(services: Services, after: Path, recipe: Recipe) -> Recipe | None:
    """The recipe with the requirements that stand after the fix, when it changes them: its tests were written with
    those. Both states then run with them, as they would for the fix's author. None when it does not, or was tried."""
    if any(attempt.name == "fix_requirements" for attempt in recipe.attempts):
        return None
    try:
        theirs = detect(after, as_of=recipe.as_of, pythons=(recipe.python_version,))
    except Rejected:
        return None  # the fix leaves the project unreadable: the complaint at hand says more
    ours = {line for rung in recipe.rungs for line in rung.requirements} | {*recipe.always}
    new = {line for rung in theirs.rungs for line in rung.requirements} | {*theirs.always}
    changed = sorted(new - ours)
    if not changed:
        return None
    attempt = Attempt("repair", "fix_requirements", worked=True, detail=", ".join(changed[:8]))
    return replace(
        theirs,
        layout=recipe.layout,
        environment_variables=recipe.environment_variables,
        considered=recipe.considered,
        repairs=(*recipe.repairs, "fix_requirements"),
        attempts=(*recipe.attempts, attempt),
    )


def _tried(
    services: Services, subject: EnvironmentInput, after: Path, climbed: Climbed, spec: EnvironmentSpec
) -> tuple[Materialised | None, Complaint | None]:
    """The environment made and the complaint of its smoke test; a build that fails is a complaint of its own."""
    try:
        made = services.sandboxes.materialise(spec)
    except Rejected as verdict:
        if verdict.reason is not RejectReason.BUILD_FAILED:
            raise
        return None, Complaint("build", "the environment cannot be built", verdict.detail.encode())
    return made, smoke(services, spec, climbed.recipe, after, subject.test_files)


def _output(services: Services, climbed: Climbed, spec: EnvironmentSpec, made: Materialised) -> EnvironmentOutput:
    return EnvironmentOutput(
        recipe=replace(climbed.recipe, repairs=climbed.locked.repairs),
        spec=spec,
        n_packages=climbed.locked.n_packages,
        resolved_as_of=climbed.locked.as_of,
        lock=services.artifacts.put(climbed.locked.text.encode(), "text/plain"),
        sandbox=services.sandboxes.name,
        materialised=made,
    )


def _climb(services: Services, subject: EnvironmentInput, recipe: Recipe) -> Climbed:
    """Raises EnvironmentRejected at the step "resolve"."""
    try:
        return climb(recipe, run_uv=services.sandboxes.run_uv, timeout_s=services.settings.build_timeout_s)
    except LadderFailed as failed:
        complaint = Complaint("resolve", failed.detail, failed.log.encode())
        raise _rejected(services, subject, failed.recipe, complaint) from failed


def _climb_again(services: Services, subject: EnvironmentInput, better: Recipe, complaint: Complaint) -> Climbed:
    """After a repair. When that does not resolve, the complaint that asked for it is the verdict."""
    try:
        return climb(_afresh(better), run_uv=services.sandboxes.run_uv, timeout_s=services.settings.build_timeout_s)
    except LadderFailed as failed:
        tried = replace(better, attempts=(*better.attempts[:-1], _vain(better.attempts[-1], failed)))
        raise _rejected(services, subject, tried, complaint) from failed


def _afresh(recipe: Recipe) -> Recipe:
    """A recipe to climb with once more: the next climb writes down its rungs itself."""
    return replace(recipe, attempts=tuple(attempt for attempt in recipe.attempts if attempt.name in _OURS))


def _vain(attempt: Attempt, failed: Rejected) -> Attempt:
    return replace(attempt, worked=False, detail=f"{attempt.detail}: {failed.detail[-200:]}")


class EnvironmentRejected(Rejected):
    """No environment: which step failed, with the last lines of its log, which is kept whole as an artifact."""

    def __init__(
        self, reason: RejectReason, detail: str, recipe: Recipe, step: str, log: ArtifactRef, log_text: str
    ) -> None:
        super().__init__(reason, detail)
        self.recipe, self.step, self.log, self.log_text = recipe, step, log, log_text


def _rejected(
    services: Services, subject: EnvironmentInput, recipe: Recipe, complaint: Complaint
) -> EnvironmentRejected:
    log = services.artifacts.put(complaint.log, _LOG_MEDIA_TYPE)
    same = complaint.how.strip() == complaint.tail.strip()
    said = complaint.how if same or complaint.step == "resolve" else f"{complaint.how}\n{complaint.tail}"
    detail = f"{subject.instance_id} has no environment: step {complaint.step}: {said}\nthe whole log: {log.digest}"
    return EnvironmentRejected(_REASONS[complaint.step], detail, recipe, complaint.step, log, complaint.text)


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


# ---------------------------------------------------------------- what only the tests name


def _with_test_imports(services: Services, subject: EnvironmentInput, after: Path, climbed: Climbed) -> Climbed:
    """Adds what the instance's test files import though nothing declares it. When that does not resolve, the
    environment stays as declared: the tests may do without."""
    recipe = climbed.recipe
    paths = sorted({*subject.test_files, *_conftests(subject.test_files)})
    wanted = needed_by(read_text(after, path) for path in paths)
    absent = wanted - set(package_names(climbed.locked.text)) - {canonicalize_name(recipe.layout.name)}
    if not absent:
        return climbed
    asked = with_requirements(recipe, tuple(sorted(absent)), "test_imports")
    names = ", ".join(sorted(absent))
    try:
        found = climb(_afresh(asked), run_uv=services.sandboxes.run_uv, timeout_s=services.settings.build_timeout_s)
    except LadderFailed as verdict:
        attempt = Attempt("rung", "test imports", worked=False, detail=f"{names}: {verdict.detail[-200:]}")
        return replace(climbed, recipe=replace(recipe, attempts=(*recipe.attempts, attempt)))
    attempt = Attempt("rung", "test imports", worked=True, detail=names, n_requirements=len(absent))
    origins = {**found.recipe.origins, **dict.fromkeys(sorted(absent), "imported by the tests")}
    return replace(found, recipe=replace(found.recipe, attempts=(*found.recipe.attempts, attempt), origins=origins))


def _conftests(test_files: Iterable[str]) -> set[str]:
    return {str(parent / "conftest.py") for path in test_files for parent in Path(path).parents}


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
    environment_id = _environment(session, output)
    _build(session, environment_id, output)
    _artifact(session, output.lock)
    instance.environment_id = environment_id
    instance.environment_setup_commit = instance.environment_setup_commit or instance.base_commit
    instance.project = asdict(output.recipe.layout)
    instance.recipe = recipe_as_json(output.recipe)
    instance.test_command = list(output.recipe.test_command)
    instance.version = output.recipe.layout.version
    instance.status, instance.reject_reason, instance.reject_detail = InstanceStatus.CANDIDATE, None, ""
    session.add(instance)
    return Saved(next_jobs=(NextJob(StageName.VALIDATION, subject_id),))


def _environment(session: Session, output: EnvironmentOutput) -> int:
    """The environment's row; another worker may insert the same digest at the same moment."""
    query = select(Environment).where(Environment.digest == output.spec.digest)
    found = session.exec(query).first()
    if found is None:
        row = Environment(
            digest=output.spec.digest,
            python_version=output.spec.python_version,
            lock_digest=output.lock.digest,
            recipe=recipe_as_json(output.recipe),
            system_packages=list(output.spec.system_packages),
            n_packages=output.n_packages,
            resolved_as_of=output.resolved_as_of,
        )
        _insert(session, row)
        found = session.exec(query).one()
    assert found.id is not None
    return found.id


def _build(session: Session, environment_id: int, output: EnvironmentOutput) -> None:
    query = select(EnvironmentBuild).where(
        EnvironmentBuild.environment_id == environment_id, EnvironmentBuild.sandbox == output.sandbox
    )
    made = output.materialised
    row = session.exec(query).first()
    if row is None:
        _insert(
            session,
            EnvironmentBuild(
                environment_id=environment_id,
                sandbox=output.sandbox,
                locator=made.locator,
                size_bytes=made.size_bytes,
                duration_s=made.duration_s,
            ),
        )
    elif made.built:
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
