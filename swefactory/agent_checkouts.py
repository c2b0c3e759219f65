"""The checkout that an agent gets: the base commit's tree, sealed to one commit, and how it is made importable.

One property: rollouts and the leak audit open a sandbox on exactly the same.

A project's own extension modules, built from the base commit, are beside its sources; neither they nor what building
them again leaves behind belong to the commit or to the model_patch.
"""

import re
from pathlib import Path

from swefactory.evaluation import EvaluationServices, EvaluationSpec
from swefactory.own_extensions import lay_extensions, limits_of
from swefactory.recipes.generated_files import write_generated
from swefactory.recipes.layout import write_project
from swefactory.sandbox_protocols import SandboxSpec
from swefactory.tree_diffs import remember
from swefactory.trees import copy_tree, seal

_PLAIN = re.compile(r"[\w./+-]+")  # means itself in a .gitignore


def prepare(services: EvaluationServices, scratch: Path, spec: EvaluationSpec) -> tuple[SandboxSpec, str]:
    """The tree the agent gets, sealed, and the id of what it holds now. Raises ExtensionsFailed: the base commit was
    built when its environment was made, so what fails now is on our side."""
    checkout, project, inputs = scratch / "checkout", scratch / "project", scratch / "inputs"
    checkout.mkdir()
    inputs.mkdir()
    copy_tree(spec.tree, checkout)
    write_generated(spec.layout, checkout)
    litter = _build_litter(checkout, spec.layout.folder) if spec.build else ()
    tree_id = remember(checkout, inputs, litter)
    seal(checkout)
    if spec.build:
        lay_extensions(services, spec.build, spec.layout, spec.environment_variables, checkout)
        (checkout / ".git" / "info" / "exclude").write_text("".join(f"{pattern}\n" for pattern in litter))
    write_project(spec.layout, project)
    sandbox_spec = SandboxSpec(
        environment=spec.environment,
        checkout=checkout,
        project=project,
        inputs=inputs,
        limits=limits_of(services.settings),
        label=services.label,
    )
    return sandbox_spec, tree_id


def _build_litter(checkout: Path, folder: str) -> tuple[str, ...]:
    """What a build of extension modules leaves: the modules, its folder, and the C that Cython writes."""
    sources = (path.relative_to(checkout).with_suffix("").as_posix() for path in checkout.rglob("*.pyx"))
    stems = sorted(stem for stem in sources if _PLAIN.fullmatch(stem))
    build = "/build/" if folder == "." else f"/{folder}/build/"
    return ("*.so", "*.pyd", build, *(f"/{stem}{end}" for stem in stems for end in (".c", ".cpp", ".html")))
