"""The environment that builds a project's own extension modules. One property: locked as of the same day as the tests'.

It holds the recipe's build requirements and nothing of the project: PEP 518's, and those of a setup.py (see
recipes.compiled). Projects that ask for the same share it, as any environment.
"""

import re
from dataclasses import dataclass, replace

from swefactory.own_extensions import BuildServices
from swefactory.protocols import Recipe
from swefactory.recipes.lock import Locked, resolve, spec_of
from swefactory.sandbox_protocols import EnvironmentSpec, Materialised

# Modules that are built against one release of these do not load with an older one.
_SAME_RELEASE = re.compile(r"^(?:numpy)==[^\s;\\]+", re.MULTILINE)


@dataclass(frozen=True)
class BuildEnvironment:
    """A build environment that stands; `recipe` says how it was decided."""

    recipe: Recipe
    locked: Locked
    spec: EnvironmentSpec
    materialised: Materialised


def build_environment(services: BuildServices, recipe: Recipe, lock: str) -> BuildEnvironment | None:
    """Resolves and makes what builds the extension modules of `recipe`, whose tests run with `lock`; None where there
    are none. Raises Unresolved, and what materialise raises."""
    if not recipe.build_requirements:
        return None
    asked = replace(
        recipe,
        requirements=recipe.build_requirements,
        constraints=tuple(_SAME_RELEASE.findall(lock)),
        layout=replace(recipe.layout, requires=()),
        always=recipe.build_requirements,
        rungs=(),
        attempts=(),
        repairs=(),
        build_packages=(),
    )
    locked = resolve(asked, run_uv=services.sandboxes.run_uv, timeout_s=services.settings.build_timeout_s)
    decided = replace(asked, repairs=locked.repairs, attempts=locked.attempts)
    spec = spec_of(decided, locked)
    return BuildEnvironment(decided, locked, spec, services.sandboxes.materialise(spec))
