"""The ablation: what each part of the way to an environment is worth. One property: only the named part differs.

    ladder one python      Python 3.9 for all, dependencies of today, no repair
    ladder right python    the Python that the project's files ask for, dependencies of today, no repair
    ladder dated           the same, dependencies of the base commit's day

and, of the other rows, "namespace next": the same with rungs, named repairs and the smoke test's. All in the namespace
sandbox with the product's own resolver, which is handed another date, another choice of Pythons or an empty table of
repairs. Where a lock is one whose tests ran for this candidate already, they are not run again.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from benchmarks.environments.measuring import Environment, instance_of, measured
from benchmarks.environments.rows import Row
from swefactory.protocols import Recipe
from swefactory.recipes.lock import resolve, spec_of
from swefactory.recipes.python import detect
from swefactory.recipes.versions import from_tags
from swefactory.stage import Services
from swefactory.stages.environments import EnvironmentInput, commit_date

ONE_PYTHON, RIGHT_PYTHON, DATED = "ladder one python", "ladder right python", "ladder dated"


def ladder(services: Services, subject: EnvironmentInput, ours: Row | None) -> Iterator[Row]:
    """The three rows; `ours` is the product's own of this candidate."""
    known = {ours.digest: ours} if ours and ours.is_built else {}
    for way in (ONE_PYTHON, RIGHT_PYTHON, DATED):
        try:
            row = measured(services, subject, way, partial(_made, services, subject, way, set(known)))
        except _Known as found:
            row = replace(known[str(found)], way=way)
        if row.is_built:
            known[row.digest] = row
        yield row


class _Known(Exception):
    """The digest of an environment whose tests were run already."""


def _made(services: Services, subject: EnvironmentInput, way: str, known: set[str]) -> Environment:
    recipe = _recipe(services, subject, way)
    run_uv, timeout_s = services.sandboxes.run_uv, services.settings.build_timeout_s
    locked = resolve(recipe, run_uv=run_uv, timeout_s=timeout_s, repairs=())
    spec = spec_of(recipe, locked)
    if spec.digest in known:
        raise _Known(spec.digest)
    services.sandboxes.materialise(spec)
    instance = instance_of(subject, services, python=recipe.python_version, digest=spec.digest, lock=locked.text)
    filled = replace(
        instance,
        layout=recipe.layout,
        system_packages=spec.system_packages,
        environment_variables=recipe.environment_variables,
        test_command=recipe.test_command,
    )
    return Environment(filled)


def _recipe(services: Services, subject: EnvironmentInput, way: str) -> Recipe:
    """As the stage detects it, with the Python or the date that this way asks for. The right Python goes by the
    commit's day; one Python is one Python, born by then or not."""
    mirror = services.checkouts.mirror(subject.repository, subject.clone_url)
    day, today = commit_date(mirror, subject.base_commit), datetime.now(UTC)
    is_one = way == ONE_PYTHON
    recipe = detect(
        services.checkouts.tree(subject.repository, mirror, subject.base_commit),
        as_of=today if is_one else day,
        pythons=("3.9",) if is_one else tuple(services.sandboxes.pythons()),
        fallback_version=from_tags(mirror, subject.base_commit),
        test_files=subject.test_files,
    )
    return replace(recipe, as_of=day if way == DATED else today)
