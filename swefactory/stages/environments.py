"""The environment stage: a candidate's base commit gets a recipe, a lock, an environment that stands, and a smoke test.

    tree ─► detect ─► resolve as of its date ─► materialise ─► smoke test in a sandbox
                          ▲   named repairs: test_imports, missing_module   │
                          └──────────────────────────────────────────────────┘

One property: what is saved has stood: the package imports and pytest starts in a sealed sandbox of that environment.
"""

from collections.abc import Iterable, Iterator
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
from swefactory.evaluation import limits_of
from swefactory.protocols import PYTHON, ArtifactRef, EnvironmentSpec, Materialised, Recipe, SandboxSpec
from swefactory.recipes.files import read_text
from swefactory.recipes.imports import missing_in, needed_by
from swefactory.recipes.layout import import_names, write_project
from swefactory.recipes.lock import Locked, package_names, resolve, spec_of
from swefactory.recipes.python import detect
from swefactory.recipes.requirements import name_of
from swefactory.recipes.versions import from_tags
from swefactory.stage import NextJob, Saved, Services, Stage

_MAX_MISSING_MODULES = 4
_SMOKE_TIMEOUT_S = 120
_TAIL_BYTES = 2000


@dataclass(frozen=True)
class EnvironmentInput:
    """A candidate, as far as its environment needs to know it."""

    instance_id: str
    repository: str
    clone_url: str
    base_commit: str
    test_patch: str
    test_files: tuple[str, ...]


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
    )


def work(services: Services, subject: EnvironmentInput) -> EnvironmentOutput:
    """Raises Rejected(BASE_COMMIT_MISSING | NOT_PYTHON_PROJECT | NO_INTERPRETER | DEPENDENCIES_UNRESOLVABLE |
    BUILD_FAILED), Transient when the registry or the repository cannot be reached."""
    mirror, tree = _tree(services, subject)
    recipe = detect(
        tree,
        as_of=commit_date(mirror, subject.base_commit),
        pythons=tuple(services.sandboxes.pythons()),
        fallback_version=from_tags(mirror, subject.base_commit),
    )
    locked = _resolve(services, recipe)
    recipe, locked = _with_test_imports(services, subject, tree, recipe, locked)
    for _ in range(_MAX_MISSING_MODULES):
        spec = spec_of(recipe, locked)
        materialised = services.sandboxes.materialise(spec)
        complaint = smoke(services, spec, recipe, tree)
        if not complaint:
            return EnvironmentOutput(
                recipe=replace(recipe, repairs=locked.repairs),
                spec=spec,
                n_packages=locked.n_packages,
                resolved_as_of=locked.as_of,
                lock=services.artifacts.put(locked.text.encode(), "text/plain"),
                sandbox=services.sandboxes.name,
                materialised=materialised,
            )
        missing = missing_in(complaint)
        if not missing or missing in package_names(locked.text):
            break
        recipe = _extended(recipe, [missing], "missing_module")
        locked = _resolve(services, recipe)
    raise Rejected(RejectReason.BUILD_FAILED, f"{subject.instance_id} does not start in its environment:\n{complaint}")


def commit_date(mirror: Path, commit: str) -> datetime:
    """When `commit` was committed (not authored): what was published by then could be used."""
    return datetime.fromtimestamp(int(run_git(mirror, "show", "-s", "--format=%ct", commit).split()[-1]), tz=UTC)


def _tree(services: Services, subject: EnvironmentInput) -> tuple[Path, Path]:
    mirror = services.checkouts.mirror(subject.repository, subject.clone_url)
    if not services.checkouts.commit_exists(mirror, subject.base_commit):
        mirror = services.checkouts.mirror(subject.repository, subject.clone_url, fetch=True)
    return mirror, services.checkouts.tree(subject.repository, mirror, subject.base_commit)


def _resolve(services: Services, recipe: Recipe) -> Locked:
    return resolve(recipe, run_uv=services.sandboxes.run_uv, timeout_s=services.settings.build_timeout_s)


# ---------------------------------------------------------------- repairs that need more than the resolver's words


def _with_test_imports(
    services: Services, subject: EnvironmentInput, tree: Path, recipe: Recipe, locked: Locked
) -> tuple[Recipe, Locked]:
    """Adds what the instance's test files import though nothing declares it. When that does not resolve, the
    environment stays as declared: the tests may do without."""
    with services.checkouts.scratch() as folder:
        wanted = needed_by(_test_sources(Path(folder), tree, subject))
    absent = wanted - set(package_names(locked.text)) - {canonicalize_name(recipe.layout.name)}
    if not absent:
        return recipe, locked
    extended = _extended(recipe, absent, "test_imports")
    try:
        return extended, _resolve(services, extended)
    except Rejected as verdict:
        why = {**recipe.why, "test_imports not added": f"{', '.join(sorted(absent))}: {verdict.detail[-200:]}"}
        return replace(recipe, why=why), locked


def _test_sources(folder: Path, tree: Path, subject: EnvironmentInput) -> Iterator[str]:
    """The test files as the test_patch leaves them, and every conftest.py above them."""
    copy_tree(tree, folder)
    try:
        apply_patch(folder, subject.test_patch)
    except ValueError as error:
        detail = f"the test_patch of {subject.instance_id} does not apply to {subject.base_commit}: {error}"
        raise Rejected(RejectReason.PATCH_DOES_NOT_APPLY, detail) from error
    for path in sorted({*subject.test_files, *_conftests(subject.test_files)}):
        yield read_text(folder, path)


def _conftests(test_files: Iterable[str]) -> set[str]:
    return {str(parent / "conftest.py") for path in test_files for parent in Path(path).parents}


def _extended(recipe: Recipe, names: Iterable[str], repair: str) -> Recipe:
    have = {name_of(line) for line in recipe.requirements}
    added = [name for name in sorted(names) if name not in have]
    return replace(
        recipe,
        requirements=tuple(sorted((*recipe.requirements, *added))),
        repairs=(*recipe.repairs, repair),
        why={**recipe.why, repair: ", ".join(added)},
    )


def smoke(services: Services, spec: EnvironmentSpec, recipe: Recipe, tree: Path) -> str:
    """Imports the project's packages and starts pytest in a sandbox; empty when both work, else the output's tail."""
    names = import_names(tree, recipe.layout)
    with services.checkouts.scratch() as folder:
        write_project(recipe.layout, Path(folder))
        opened = SandboxSpec(
            spec, tree, project=Path(folder), limits=limits_of(services.settings), label=services.label
        )
        with services.sandboxes.open(opened) as sandbox:
            for argv in (
                [PYTHON, "-c", "".join(f"import {name}\n" for name in names)],
                [PYTHON, "-m", "pytest", "--version"],
            ):
                result = sandbox.run(argv, timeout_s=_SMOKE_TIMEOUT_S)
                if result.exit_code != 0:
                    how = "timed out" if result.timed_out else f"ended with {result.exit_code}"
                    return f"{' '.join(argv[1:])} {how}\n{result.output[-_TAIL_BYTES:].decode(errors='replace')}"
    return ""


# ---------------------------------------------------------------- save


def save(session: Session, subject_id: int, output: EnvironmentOutput | Rejected) -> Saved:
    """Writes the environment, its build and its lock's artifact, and points the instance at them."""
    instance = session.get_one(TaskInstance, subject_id)
    if isinstance(output, Rejected):
        instance.status = InstanceStatus.REJECTED
        instance.reject_reason, instance.reject_detail = output.reason, output.detail
        session.add(instance)
        return Saved(rejected=output)
    environment_id = _environment(session, output)
    _build(session, environment_id, output)
    _artifact(session, output.lock)
    instance.environment_id = environment_id
    instance.environment_setup_commit = instance.environment_setup_commit or instance.base_commit
    instance.project = asdict(output.recipe.layout)
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
