"""The smoke test of an environment: in a sealed sandbox the package imports and the test files collect.

    import     every package of the project, on base + patch + test_patch
    pytest     pytest starts, where it runs the tests
    collect    the candidate's test files, as an evaluation would collect them

One property: it judges the tree after the fix. A module that only the fix adds must not speak against an environment.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from swefactory.evaluation import INPUTS, EvaluationServices, limits_of
from swefactory.protocols import INPUTS_DIR, PYTHON, CommandResult, EnvironmentSpec, Recipe, Sandbox, SandboxSpec
from swefactory.recipes.generated_files import write_generated
from swefactory.recipes.layout import import_names, write_project
from swefactory.runners import program, uses_pytest

_COLLECT = f"{INPUTS_DIR}/swefactory_collect.py"
_NO_TESTS = 5  # pytest's exit code; whether that matters is validation's to say
_TIMEOUT_S = 120
_COLLECT_TIMEOUT_S = 300
_TAIL_LINES = 30


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


def smoke(
    services: EvaluationServices, spec: EnvironmentSpec, recipe: Recipe, checkout: Path, test_files: tuple[str, ...]
) -> Complaint | None:
    """None when all steps work. `checkout` holds the tree after the fix, and is given its generated files."""
    names = import_names(checkout, recipe.layout)
    files = [path for path in test_files if (checkout / path).is_file() and path.endswith(".py")]
    write_generated(recipe.layout, checkout)
    with services.checkouts.scratch() as folder:
        write_project(recipe.layout, Path(folder))
        opened = SandboxSpec(
            spec,
            checkout,
            project=Path(folder),
            inputs=INPUTS,
            limits=limits_of(services.settings),
            label=services.label,
        )
        with services.sandboxes.open(opened) as sandbox:
            return _steps(sandbox, recipe, names, files)


def _steps(sandbox: Sandbox, recipe: Recipe, names: tuple[str, ...], files: list[str]) -> Complaint | None:
    is_pytest = uses_pytest(recipe.test_command)
    collect = [_COLLECT, *files] if is_pytest else [program(recipe.test_command)]
    asked = json.dumps({"command": recipe.test_command, "arguments": files, "collect_only": True}).encode()
    steps = (
        ("import", [PYTHON, "-c", "".join(f"import {name}\n" for name in names)], _TIMEOUT_S, (0,)),
        *([("pytest", [PYTHON, "-m", "pytest", "--version"], _TIMEOUT_S, (0,))] if is_pytest else []),
        *([("collect", [PYTHON, *collect], _COLLECT_TIMEOUT_S, (0, _NO_TESTS))] if files else []),
    )
    for step, argv, timeout_s, accepted in steps:
        stdin = b"" if is_pytest or step != "collect" else asked
        result = sandbox.run(argv, timeout_s=timeout_s, env=recipe.environment_variables, stdin=stdin)
        if result.exit_code not in accepted:
            return Complaint(step, f"{' '.join(argv[1:])} {_ended(result, timeout_s)}", result.output)
    return None


def _ended(result: CommandResult, timeout_s: float) -> str:
    if result.timed_out:
        return f"timed out after {timeout_s:.0f} s"
    return f"ended with {result.exit_code}{', out of memory' if result.out_of_memory else ''}"
