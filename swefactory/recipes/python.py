"""A checkout becomes a Recipe. One property: decided from files alone; nothing of the repository is executed.

    project files ─► interpreter (python_choice) ─► tox, nox, CI for it ─► rungs of dependencies ─► system packages
                  └► what builds its own extension modules (compiled)

Every fact carries where it came from: `why`, `origins`, `considered` and the rungs of the recipe.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from db.enums import RejectReason
from swefactory.errors import Rejected
from swefactory.protocols import ProjectLayout, Recipe
from swefactory.recipes import dependencies
from swefactory.recipes.automation import TestRun, test_run, test_tools
from swefactory.recipes.ci_files import read_jobs
from swefactory.recipes.compiled import build_needs
from swefactory.recipes.declared import Declared, merged
from swefactory.recipes.dependencies import Dependencies
from swefactory.recipes.layout import layout_of, with_roots_of
from swefactory.recipes.pyproject import read_flit_ini, read_pipfile, read_pyproject
from swefactory.recipes.python_choice import choose_python
from swefactory.recipes.requirements import name_of
from swefactory.recipes.setuptools_files import read_setup_cfg, read_setup_py
from swefactory.recipes.subfolders import beside, is_project, moved, project_folder
from swefactory.recipes.system_packages import from_ci, of_requirements, root_needs
from swefactory.recipes.test_runner import Runner, choose_runner
from swefactory.runners import uses_pytest

_PROJECT_FILES = ("pyproject.toml", "setup.cfg", "setup.py", "flit.ini")


def detect(
    tree: Path,
    *,
    as_of: datetime,
    pythons: Collection[str],
    fallback_version: str = "",
    test_files: Iterable[str] = (),
) -> Recipe:
    """The recipe of the checkout at `tree`. `as_of` is its commit's date, `pythons` what the sandboxes offer ("3.9"),
    `fallback_version` the version when the files state none, `test_files` tell which of several projects is meant.
    Raises Rejected(NOT_PYTHON_PROJECT | NO_INTERPRETER)."""
    folder = project_folder(tree, test_files)
    own = tree / folder
    declared, neighbours = _with_neighbours(tree, folder, read_declared(own))
    jobs = read_jobs(tree)
    choice = choose_python(own, declared, jobs, as_of, pythons)
    tools = test_tools(own, jobs, choice.version)
    chosen, run = dependencies.choose(own, declared, tools, above=tree if folder != "." else None), test_run(tools)
    runner = choose_runner(own, run, _named(chosen))
    chosen = _without_default(chosen, runner)
    asked = from_ci(jobs)
    packages = {**asked.run, **root_needs(tree), **of_requirements(map(name_of, chosen.requirements))}
    layout, layout_why = layout_of(own, declared, fallback_version)
    building = build_needs(own, declared)
    named = set(map(name_of, chosen.requirements))
    rebuild = tuple(line for line in building if name_of(line) not in named)  # who changes C inside must build, too
    return Recipe(
        python_version=choice.version,
        requirements=tuple(sorted((*chosen.requirements, *rebuild))),
        constraints=chosen.constraints,
        system_packages=tuple(sorted(packages)),
        test_command=runner.command,
        environment_variables=run.variables,
        layout=_beside(moved(layout, folder), tree, neighbours),
        as_of=as_of.astimezone(UTC),
        why={
            **chosen.why,
            **layout_why,
            **_why(declared, run, folder),
            "runner": runner.why,
            "python_version": choice.why,
        },
        origins={**building, **chosen.origins, **packages, **asked.build, **run.origins},
        considered=choice.considered,
        rungs=chosen.rungs,
        always=(*chosen.always, *rebuild),
        build_packages=tuple(sorted(asked.build)),
        compiled=declared.compiled,
        build_requirements=tuple(building),
    )


def spanning(recipe: Recipe, after: Path) -> Recipe:
    """The recipe for the tree `after` the fix too: its layout has the source roots of both. Of a project at the root:
    one below it does not move."""
    if not is_project(after):
        return recipe
    return replace(recipe, layout=with_roots_of(recipe.layout, after, read_declared(after)))


def _named(chosen: Dependencies) -> set[str]:
    """The distributions that the project names for its tests, also where another list is in use."""
    lines = (*chosen.requirements, *(line for rung in chosen.rungs for line in rung.requirements))
    return {name_of(line) for line in lines} - ({"pytest"} if "pytest" in chosen.why else set())


def _without_default(chosen: Dependencies, runner: Runner) -> Dependencies:
    """pytest is added where nothing names it, unless another runner is needed."""
    if uses_pytest(runner.command) or "pytest" not in chosen.why:
        return chosen
    return replace(
        chosen,
        requirements=tuple(line for line in chosen.requirements if line != "pytest"),
        origins={line: origin for line, origin in chosen.origins.items() if line != "pytest"},
        why={name: why for name, why in chosen.why.items() if name != "pytest"},
    )


def _why(declared: Declared, run: TestRun, folder: str) -> Mapping[str, str]:
    command = {"test_command": f"{run.command} ({run.origin})"} if run.command else {}
    below = {"folder": f"{folder}: the root is no project; places are told as of this folder"} if folder != "." else {}
    return {"name": declared.why.get("name", ""), **command, **below}


def _with_neighbours(tree: Path, folder: str, declared: Declared) -> tuple[Declared, list[str]]:
    """What a project below the root declares, with what its neighbours in the repository require; their folders."""
    neighbours: list[str] = []
    while folder != ".":
        names = (*declared.local, *map(name_of, declared.requires))
        new = [each for each in beside(tree, folder, names) if each not in neighbours]
        if not new:
            break
        theirs = [read_declared(tree / each) for each in new]
        neighbours += new
        declared = replace(
            declared,
            local=(*declared.local, *(each.name for each in theirs)),
            requires=tuple(dict.fromkeys((*declared.requires, *(line for each in theirs for line in each.requires)))),
        )
    return declared, neighbours


def _beside(layout: ProjectLayout, tree: Path, neighbours: Iterable[str]) -> ProjectLayout:
    """The layout with the neighbours' source roots after its own, and their versions."""
    roots, versions, generated = list(layout.source_roots), {}, dict(layout.generated_files)
    for folder in neighbours:
        theirs = moved(layout_of(tree / folder, read_declared(tree / folder))[0], folder)
        roots += theirs.source_roots
        generated |= theirs.generated_files
        versions[theirs.name] = theirs.version
    roots = list(dict.fromkeys(roots))
    return replace(layout, source_roots=tuple(roots), neighbours=versions, generated_files=generated)


def read_declared(tree: Path) -> Declared:
    """Everything the project files declare. Raises Rejected(NOT_PYTHON_PROJECT) when there is no Python to install."""
    if not any((tree / name).is_file() for name in _PROJECT_FILES) and not any(tree.glob("*.py")):
        detail = f"no {', '.join(_PROJECT_FILES)} and no Python file at the root"
        raise Rejected(RejectReason.NOT_PYTHON_PROJECT, detail)
    return merged(
        [
            ("pyproject.toml", read_pyproject(tree)),
            ("setup.cfg", read_setup_cfg(tree)),
            ("setup.py", read_setup_py(tree)),
            ("flit.ini", read_flit_ini(tree)),
            ("Pipfile", read_pipfile(tree)),
        ]
    )
