"""The smoke test of an environment: in a sealed sandbox the package imports and the test files collect.

    extensions the project's own extension modules, if any, are built: after the fix, and at the base commit
    import     every package of the project, on base + patch + test_patch
    collect    the candidate's test files, as an evaluation would collect them
    pytest     pytest starts, where it runs the tests: asked where nothing was collected

One property: it judges the tree after the fix. A module that only the fix adds must not speak against an environment.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from swefactory.errors import InfrastructureError
from swefactory.evaluation import INPUTS, EvaluationServices
from swefactory.machine_faults import fault_of
from swefactory.own_extensions import lay_extensions, limits_of
from swefactory.protocols import Recipe
from swefactory.recipes.generated_files import write_generated
from swefactory.recipes.layout import import_names, write_project
from swefactory.runners import program, uses_pytest
from swefactory.sandbox_protocols import INPUTS_DIR, PYTHON, CommandResult, EnvironmentSpec, Sandbox, SandboxSpec
from swefactory.sandboxes.extensions import Extensions, ExtensionsFailed
from swefactory.trees import copy_tree

_COLLECT = f"{INPUTS_DIR}/swefactory_collect.py"
_NO_TESTS = 5  # pytest's exit code; whether that matters is validation's to say
_TIMEOUT_S = 120
_COLLECT_TIMEOUT_S = 300
_TAIL_LINES = 30
_RUNS = 3  # of a step that is killed each time: by something outside, or by itself


@dataclass(frozen=True)
class Complaint:
    """A step that failed: its name, one sentence how, and all that it printed."""

    step: str
    how: str
    log: bytes

    @property
    def text(self) -> str:
        """All that was printed."""
        return self.log.decode(errors="replace")

    @property
    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.text.strip().splitlines()[-_TAIL_LINES:])


@dataclass(frozen=True)
class Tried:
    """What a smoke test found: None when all steps work. `modules` are the extension modules that were built, `log`
    what their build said where it ran now."""

    complaint: Complaint | None
    modules: tuple[str, ...] = ()
    log: str = ""


def smoke(
    services: EvaluationServices,
    spec: EnvironmentSpec,
    recipe: Recipe,
    trees: tuple[Path, Path],
    test_files: tuple[str, ...],
    build: EnvironmentSpec | None = None,
) -> Tried:
    """`trees` are the base commit's and the one after the fix; neither is written to. `build` builds the
    project's own extension modules; None where they are left out or there are none."""
    base, after = trees
    names = import_names(after, recipe.layout)
    files = [path for path in test_files if (after / path).is_file() and path.endswith(".py")]
    with services.checkouts.scratch() as name:
        checkout, project = Path(name) / "checkout", Path(name) / "project"
        try:
            made = _checkout(services, recipe, after, checkout, build)
            if build is not None:
                _checkout(services, recipe, base, Path(name) / "base", build)
        except ExtensionsFailed as failed:
            return Tried(Complaint("extensions", failed.how, failed.log.encode()))
        write_project(recipe.layout, project)
        limits = limits_of(services.settings)
        opened = SandboxSpec(spec, checkout, project=project, inputs=INPUTS, limits=limits, label=services.label)
        with services.sandboxes.open(opened) as sandbox:
            return Tried(_steps(sandbox, recipe, names, files), tuple(sorted(made.files)), made.log)


def _checkout(
    services: EvaluationServices, recipe: Recipe, tree: Path, checkout: Path, build: EnvironmentSpec | None
) -> Extensions:
    """A copy of the tree with its generated files and extension modules. Raises ExtensionsFailed."""
    checkout.mkdir()
    copy_tree(tree, checkout)
    write_generated(recipe.layout, checkout)
    if build is None:
        return Extensions({})
    return lay_extensions(services, build, recipe.layout, recipe.environment_variables, checkout)


@dataclass(frozen=True)
class _Step:
    name: str
    argv: list[str]
    timeout_s: float = _TIMEOUT_S
    accepted: tuple[int, ...] = (0,)
    stdin: bytes = b""


def _steps(sandbox: Sandbox, recipe: Recipe, names: tuple[str, ...], files: list[str]) -> Complaint | None:
    is_pytest = uses_pytest(recipe.test_command)
    collect = [_COLLECT, *files] if is_pytest else [program(recipe.test_command)]
    asked = json.dumps({"command": recipe.test_command, "arguments": files, "collect_only": True}).encode()
    importing = _Step("import", [PYTHON, "-c", "".join(f"import {name}\n" for name in names)])
    starting = _Step("pytest", [PYTHON, "-m", "pytest", "--version"])
    collecting = _Step(
        "collect", [PYTHON, *collect], _COLLECT_TIMEOUT_S, (0, _NO_TESTS), stdin=b"" if is_pytest else asked
    )

    def complaint(step: _Step) -> Complaint | None:
        env = recipe.environment_variables
        for _ in range(_RUNS):
            result = sandbox.run(step.argv, timeout_s=step.timeout_s, env=env, stdin=step.stdin)
            if result.exit_code in step.accepted:
                return None
            if not result.was_killed:
                break
        if not result.was_killed and (why := fault_of(result)):
            raise InfrastructureError(f"the smoke test's step {step.name} gave no answer: {why}")
        return Complaint(step.name, f"{' '.join(step.argv[1:])} {_ended(result, step.timeout_s)}", result.output)

    if found := complaint(importing):
        return found
    if files and (found := complaint(collecting)) is None:
        return None
    # It has not collected: because it does not even start?
    return (complaint(starting) if is_pytest else None) or found


def _ended(result: CommandResult, timeout_s: float) -> str:
    if result.timed_out:
        return f"timed out after {timeout_s:.0f} s"
    return f"ended with {result.exit_code}{', out of memory' if result.out_of_memory else ''}"
