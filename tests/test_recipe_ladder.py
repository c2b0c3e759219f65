"""The ladder: rungs that hold together, rungs that clash, and what is recorded of each."""

import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from swefactory.protocols import ProjectLayout, Recipe, Rung
from swefactory.recipes.ladder import LadderFailed, climb
from swefactory.recipes.lock import package_names
from swefactory.recipes.smoke_repairs import REPAIRS, repaired, wants_older_python
from swefactory.sandbox_protocols import RunUv
from tests.fake_environments import HERE, host_uv, need_registry


@pytest.fixture(scope="module")
def run_uv(tmp_path_factory: pytest.TempPathFactory) -> RunUv:
    folder = Path(os.environ.get("SWEFACTORY_TEST_UV_CACHE") or tmp_path_factory.mktemp("uv"))
    need_registry(folder)
    return host_uv(folder, {HERE: sys.executable})


def rung(name: str, *lines: str, fallback: bool = False) -> Rung:
    return Rung(name, lines, (), dict.fromkeys(lines, f"{name}.txt:1"), fallback)


def recipe(*rungs: Rung, always: tuple[str, ...] = ("idna",), requires: tuple[str, ...] = ()) -> Recipe:
    lines = {*always, "pytest", *(line for each in rungs if not each.is_fallback for line in each.requirements)}
    return Recipe(
        python_version=HERE, requirements=tuple(sorted(lines)), constraints=(), system_packages=(),
        test_command=("-m", "pytest"), environment_variables={}, layout=ProjectLayout("x", "1", requires=requires),
        as_of=datetime(2024, 5, 1, tzinfo=UTC), rungs=rungs, always=always,
    )  # fmt: skip


def tried(found: Recipe) -> list[tuple[str, str, bool, int]]:
    return [(each.kind, each.name, each.worked, each.n_requirements) for each in found.attempts]


def test_rungs_that_agree_hold_together_and_each_is_worth_what_it_adds(run_uv: RunUv) -> None:
    asked = recipe(rung("extras", "pytest>=8", "idna"), rung("tox", "pretend", "pytest"))
    climbed = climb(asked, run_uv=run_uv, timeout_s=120)
    assert {"pretend", "pytest", "idna"} <= set(package_names(climbed.locked.text))
    assert tried(climbed.recipe) == [("rung", "extras", True, 1), ("rung", "tox", True, 1)]
    assert [attempt.detail for attempt in climbed.recipe.attempts] == ["pytest", "pretend"]


def test_a_rung_that_clashes_with_a_better_one_is_left_out_and_its_reason_kept(run_uv: RunUv) -> None:
    asked = recipe(rung("extras", "pluggy>=1.4"), rung("tox", "pluggy<1.4"), rung("nox", "pretend"))
    climbed = climb(asked, run_uv=run_uv, timeout_s=120)
    assert tried(climbed.recipe) == [
        ("rung", "extras", True, 1), ("rung", "nox", True, 1),
        ("rung", "all together", False, 0), ("rung", "tox", False, 0),
    ]  # fmt: skip
    assert "pluggy" in climbed.recipe.attempts[-1].detail
    assert [each.is_fallback for each in climbed.recipe.rungs] == [False, True, False]
    assert "pluggy<1.4" not in climbed.recipe.requirements


def test_a_single_rung_that_clashes_with_the_project_is_loosened(run_uv: RunUv) -> None:
    asked = recipe(rung("file", "idna==3.4", "pretend"), always=("idna>=3.6",), requires=("idna>=3.6",))
    climbed = climb(asked, run_uv=run_uv, timeout_s=120)
    assert "idna==3.7" in climbed.locked.text
    assert tried(climbed.recipe) == [
        ("rung", "file", True, 1), ("rung", "all together", False, 0), ("repair", "relax_pins", True, 0),
    ]  # fmt: skip


def test_fallbacks_come_last_and_pytest_always(run_uv: RunUv) -> None:
    asked = recipe(rung("ci", "no-such-package-here-at-all>=3", fallback=True))
    climbed = climb(asked, run_uv=run_uv, timeout_s=120)
    assert tried(climbed.recipe) == []
    assert "pytest" in package_names(climbed.locked.text)


def test_when_the_project_itself_cannot_be_had_every_try_is_in_the_verdict(run_uv: RunUv) -> None:
    asked = recipe(rung("extras", "pretend"), always=("idna>=90",), requires=("idna>=90",))
    with pytest.raises(LadderFailed, match="idna") as caught:
        climb(asked, run_uv=run_uv, timeout_s=120)
    assert tried(caught.value.recipe) == [("rung", "all together", False, 0)]
    assert "requirements are unsatisfiable" in caught.value.log


# ---------------------------------------------------------------- repairs of what stands but does not work

# Word for word as provoked: NO_MARKER (pytest, its two telling lines). Shortened: NO_MODULE (pytest; without its hint
# and importlib's frames, the module's name left open). Written in the tools' wording, not provoked: NO_LIBRARY (the
# loader) and NO_HEADER (gcc and setuptools, without gcc's quotation).
NO_MODULE = """ImportError while importing test module '/testbed/tests/test_a.py'.
Traceback:
tests/test_a.py:1: in <module>
    import {}
E   ModuleNotFoundError: No module named '{}'"""
NO_MARKER = """ERROR collecting tests/test_a.py
'asyncio' not found in `markers` configuration option"""
NO_LIBRARY = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
NO_HEADER = """  ext.c:4:10: fatal error: foo/bar.h: No such file or directory
  compilation terminated.
  error: command '/usr/bin/gcc' failed with exit code 1"""


@pytest.mark.parametrize(
    ("log", "name", "detail"),
    [
        (NO_MODULE.format("numpy", "numpy"), "declared_elsewhere", "numpy<2"),
        (NO_MODULE.format("yaml.loader", "yaml"), "missing_module", "pyyaml"),
        (NO_MARKER, "missing_plugin", "pytest-asyncio"),
        (NO_LIBRARY, "system_library", "libgl1"),
        (NO_HEADER, "build_packages", "libfoo-dev"),
    ],
)
def test_each_repair_of_an_environment_answers_its_words(log: str, name: str, detail: str) -> None:
    asked = replace(recipe(rung("ci", "numpy<2", fallback=True)), build_packages=("libfoo-dev",))
    found = repaired(asked, log, ("idna", "pytest"))
    assert found is not None
    assert [(each.name, each.detail) for each in found.attempts] == [(name, detail)]
    assert found.repairs == (name,)
    assert repaired(found, log, ("idna", "pytest", "numpy", "pyyaml", "pytest-asyncio")) is None


def test_every_repair_has_its_log() -> None:
    assert [repair.name for repair in REPAIRS] == [
        "declared_elsewhere", "missing_module", "missing_plugin", "system_library", "build_packages",
    ]  # fmt: skip


def test_a_module_that_no_table_knows_is_never_installed_by_its_name() -> None:
    assert repaired(recipe(), NO_MODULE.format("requestz", "requestz"), ("idna",)) is None


def test_the_project_itself_is_never_a_missing_module() -> None:
    asked = replace(recipe(), layout=ProjectLayout("CacheTools", "1"))
    assert repaired(asked, NO_MODULE.format("cachetools", "cachetools"), ("idna",)) is None


# Word for word from Python 3.12 (imp, ImpImporter) and 3.10 (Mapping, with another path); the one about use_2to3 is
# written in setuptools' wording, not provoked.
@pytest.mark.parametrize(
    "log",
    [
        "ModuleNotFoundError: No module named 'imp'",
        "ImportError: cannot import name 'Mapping' from 'collections' (/usr/lib/python3.10/collections/__init__.py)",
        "error in anyjson setup command: use_2to3 is invalid.",
        "AttributeError: module 'pkgutil' has no attribute 'ImpImporter'. Did you mean: 'zipimporter'?",
    ],
)
def test_what_a_python_has_lost_asks_for_an_older_one(log: str) -> None:
    assert wants_older_python(log)
    assert not wants_older_python("ModuleNotFoundError: No module named 'numpy'")
