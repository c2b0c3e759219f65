"""The checkout that an agent gets: the base commit's tree, sealed to one commit, and how it is made importable.

One property: rollouts and the leak audit open a sandbox on exactly the same.
"""

from pathlib import Path

from swefactory.evaluation import EvaluationServices, EvaluationSpec, limits_of
from swefactory.protocols import SandboxSpec
from swefactory.recipes.generated_files import write_generated
from swefactory.recipes.layout import write_project
from swefactory.tree_diffs import remember
from swefactory.trees import copy_tree, seal


def prepare(services: EvaluationServices, scratch: Path, spec: EvaluationSpec) -> tuple[SandboxSpec, str]:
    """The tree the agent gets, sealed, and the id of what it holds now."""
    checkout, project, inputs = scratch / "checkout", scratch / "project", scratch / "inputs"
    checkout.mkdir()
    inputs.mkdir()
    copy_tree(spec.tree, checkout)
    write_generated(spec.layout, checkout)
    tree_id = remember(checkout, inputs)
    seal(checkout)
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
