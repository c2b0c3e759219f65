"""Makes a recipe stand: resolved, built, smoke-tested, and repaired as long as a named repair answers what fails.

    climb the ladder ─► materialise ─► build environment ─► smoke test ─► Standing
          ▲                                                     │ recipes.smoke_repairs, then the fix's own requirements
          └─────────────────────────────────────────────────────┘

Where the project's own extension modules cannot be built, the smoke test tells whether it works without: then it stands
so, by the repair `without_extensions`, and what the build said is kept.

One property: what does not stand says which step failed, keeps that step's whole log, and what was tried before.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from db.enums import RejectReason
from swefactory.build_environments import BuildEnvironment, build_environment
from swefactory.errors import Rejected
from swefactory.protocols import ArtifactRef, Attempt, Recipe
from swefactory.recipes.files import read_text
from swefactory.recipes.imports import needed_by
from swefactory.recipes.ladder import Climbed, LadderFailed, climb
from swefactory.recipes.lock import Locked, Unresolved, package_names, spec_of
from swefactory.recipes.python import detect
from swefactory.recipes.smoke_repairs import REPAIRS, repaired, with_requirements
from swefactory.runners import UNITTEST, uses_pytest
from swefactory.sandbox_protocols import EnvironmentSpec, Materialised
from swefactory.smoke import Complaint, smoke
from swefactory.stage import Services

_MAX_SMOKE_REPAIRS = 5
_DETAIL = 400
_LOG_MEDIA_TYPE = "text/plain; charset=utf-8"
_OF_EXTENSIONS = frozenset(("build requirements", "extensions"))
# Attempts that outlive a climb, which writes its own anew.
_OURS = frozenset(
    (*(repair.name for repair in REPAIRS), "older_python", "fix_requirements", "unittest_runner", "test imports")
)
_REASONS = {
    "resolve": RejectReason.DEPENDENCIES_UNRESOLVABLE,
    "build requirements": RejectReason.DEPENDENCIES_UNRESOLVABLE,
    "extensions": RejectReason.BUILD_FAILED,
    "build": RejectReason.BUILD_FAILED,
    "import": RejectReason.BUILD_FAILED,
    "pytest": RejectReason.BUILD_FAILED,
    "collect": RejectReason.COLLECTION_ERROR,
}


@dataclass(frozen=True)
class Standing:
    """An environment that stood: its recipe and lock, and what was made of them."""

    climbed: Climbed
    spec: EnvironmentSpec
    materialised: Materialised
    build: BuildEnvironment | None = None  # what builds the project's own extension modules
    logs: tuple[ArtifactRef, ...] = ()  # kept of what went wrong on the way


@dataclass(frozen=True)
class _Subject:
    instance_id: str
    test_files: tuple[str, ...]
    base: Path
    after: Path


def stand(
    services: Services, instance_id: str, test_files: tuple[str, ...], trees: tuple[Path, Path], recipe: Recipe
) -> Standing:
    """Resolves, builds and tries the recipe, repaired where a named repair answers what fails. `trees` are the base
    commit's and the one after the fix, with its tests. Raises EnvironmentRejected."""
    subject = _Subject(instance_id, test_files, *trees)
    climbed = _climb(services, subject, recipe)
    climbed = _with_test_imports(services, subject, subject.after, climbed)
    n_repairs = 0
    while True:
        found = _tried(services, subject, climbed)
        if isinstance(found, Standing):
            return found
        better = repaired(climbed.recipe, found.text, package_names(climbed.locked.text))
        if better is None and (without := _without_extensions(services, subject, climbed, found)):
            return without
        better = better or _as_the_fix_asks(subject, climbed.recipe) or _by_unittest(climbed.recipe, found)
        if better is None or n_repairs == _MAX_SMOKE_REPAIRS:
            raise _rejected(services, subject, climbed.recipe, found)
        climbed, n_repairs = _climb_again(services, subject, better, found), n_repairs + 1


def _by_unittest(recipe: Recipe, complaint: Complaint) -> Recipe | None:
    """The recipe with unittest as its runner, where the project tests itself by that and pytest cannot: it does not
    start, or does not collect the files. None when it does not, or was tried."""
    own = recipe.why.get("test_command", "")
    is_unittest = " unittest" in f" {own}" and uses_pytest(recipe.test_command)
    if complaint.step not in ("pytest", "collect") or not is_unittest:
        return None
    attempt = Attempt("repair", "unittest_runner", worked=True, detail=f"{own}; pytest: {complaint.how}")
    return replace(
        recipe,
        test_command=UNITTEST,
        repairs=(*recipe.repairs, "unittest_runner"),
        why={**recipe.why, "runner": f"{own}; pytest cannot: {complaint.how}"},
        attempts=(*recipe.attempts, attempt),
    )


def _as_the_fix_asks(subject: _Subject, recipe: Recipe) -> Recipe | None:
    """The recipe with the requirements that stand after the fix, when it changes them: its tests were written with
    those. Both states then run with them, as they would for the fix's author. None when it does not, or was tried."""
    if any(attempt.name == "fix_requirements" for attempt in recipe.attempts):
        return None
    try:
        theirs = detect(
            subject.after, as_of=recipe.as_of, pythons=(recipe.python_version,), test_files=subject.test_files
        )
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


def _tried(services: Services, subject: _Subject, climbed: Climbed) -> Standing | Complaint:
    """The environment made and its smoke test passed, or its complaint; a failed build is a complaint of its own."""
    spec = spec_of(climbed.recipe, climbed.locked)
    try:
        made = services.sandboxes.materialise(spec)
    except Rejected as verdict:
        if verdict.reason is not RejectReason.BUILD_FAILED:
            raise
        return Complaint("build", "the environment cannot be built", verdict.detail.encode())
    build = _building(services, climbed)
    if isinstance(build, Complaint):
        return build
    trees = (subject.base, subject.after)
    tried = smoke(services, spec, climbed.recipe, trees, subject.test_files, build.spec if build else None)
    if tried.complaint is not None:
        return tried.complaint
    if build is not None and not tried.modules:
        return _recorded(services, Standing(climbed, spec, made), tried.log.encode(), "the build leaves no module")
    return Standing(climbed, spec, made, build)


def _building(services: Services, climbed: Climbed) -> BuildEnvironment | Complaint | None:
    """What builds the project's own extension modules, made."""
    try:
        return build_environment(services, climbed.recipe, climbed.locked.text)
    except Unresolved as unresolved:
        return Complaint("build requirements", unresolved.detail, unresolved.log.encode())
    except Rejected as verdict:
        if verdict.reason is not RejectReason.BUILD_FAILED:
            raise
        how = "the environment of the build requirements cannot be built"
        return Complaint("build requirements", how, verdict.detail.encode())


def _without_extensions(
    services: Services, subject: _Subject, climbed: Climbed, complaint: Complaint
) -> Standing | None:
    """The same without the project's own extension modules, where these alone fail: what setup.py
    says of them is no proof."""
    if complaint.step not in _OF_EXTENSIONS:
        return None
    plain = replace(climbed, recipe=replace(climbed.recipe, build_requirements=()))
    found = _tried(services, subject, plain)
    if not isinstance(found, Standing):
        return None
    return _recorded(services, found, complaint.log, (complaint.tail.splitlines() or [complaint.how])[-1])


def _recorded(services: Services, standing: Standing, log: bytes, why: str) -> Standing:
    """Writes down that the extension modules are left out; the build's log is kept."""
    kept = services.artifacts.put(log, _LOG_MEDIA_TYPE) if log else None
    detail = f"{why}; its log: {kept.digest}" if kept else why
    attempt = Attempt("repair", "without_extensions", worked=True, detail=detail[-_DETAIL:])
    recipe = standing.climbed.recipe
    recipe = replace(
        recipe,
        build_requirements=(),
        repairs=(*recipe.repairs, attempt.name),
        attempts=(*recipe.attempts, attempt),
    )
    climbed = replace(standing.climbed, recipe=recipe, locked=_noted(standing.climbed.locked, attempt.name))
    return replace(standing, climbed=climbed, build=None, logs=(*standing.logs, *([kept] if kept else [])))


def _noted(locked: Locked, repair: str) -> Locked:
    return replace(locked, repairs=(*locked.repairs, repair))


def _climb(services: Services, subject: _Subject, recipe: Recipe) -> Climbed:
    """Raises EnvironmentRejected at the step "resolve"."""
    try:
        return climb(recipe, run_uv=services.sandboxes.run_uv, timeout_s=services.settings.build_timeout_s)
    except LadderFailed as failed:
        complaint = Complaint("resolve", failed.detail, failed.log.encode())
        raise _rejected(services, subject, failed.recipe, complaint) from failed


def _climb_again(services: Services, subject: _Subject, better: Recipe, complaint: Complaint) -> Climbed:
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


def _rejected(services: Services, subject: _Subject, recipe: Recipe, complaint: Complaint) -> EnvironmentRejected:
    log = services.artifacts.put(complaint.log, _LOG_MEDIA_TYPE)
    same = complaint.how.strip() == complaint.tail.strip()
    said = (
        complaint.how
        if same or complaint.step in ("resolve", "build requirements")
        else f"{complaint.how}\n{complaint.tail}"
    )
    detail = f"{subject.instance_id} has no environment: step {complaint.step}: {said}\nthe whole log: {log.digest}"
    return EnvironmentRejected(_REASONS[complaint.step], detail, recipe, complaint.step, log, complaint.text)


def _with_test_imports(services: Services, subject: _Subject, after: Path, climbed: Climbed) -> Climbed:
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
