"""Which Python a checkout is given, from files alone."""

# ruff: noqa: E501  (tables of file contents read best unwrapped)

from datetime import UTC, datetime
from pathlib import Path

import pytest

from db.enums import RejectReason
from swefactory.errors import Rejected
from swefactory.recipes.ci_files import read_jobs
from swefactory.recipes.compiled import build_needs
from swefactory.recipes.python import detect, read_declared
from tests.fake_environments import write_tree

ALL = ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def chosen(tree: Path, date: str = "2022-06-01", pythons: tuple[str, ...] = ALL) -> tuple[str, str]:
    recipe = detect(tree, as_of=at(date), pythons=pythons)
    return recipe.python_version, recipe.why["python_version"]


def pyproject(*versions: str, requires: str = "") -> dict[str, str]:
    lines = "".join(f'  "Programming Language :: Python :: {version}",\n' for version in versions)
    bound = f'requires-python = "{requires}"\n' if requires else ""
    return {"pyproject.toml": f'[project]\nname = "x"\nversion = "1"\n{bound}classifiers = [\n{lines}]\n'}


def test_the_newest_classifier_that_existed_then_wins(tmp_path: Path) -> None:
    write_tree(tmp_path, pyproject("3", "3.8", "3.9", "3.10", "3.11"))
    assert chosen(tmp_path, "2022-06-01") == ("3.10", "classifiers in pyproject.toml")
    assert chosen(tmp_path, "2022-12-01")[0] == "3.11"


def test_requires_python_bounds_the_classifiers(tmp_path: Path) -> None:
    write_tree(tmp_path, pyproject("3.8", "3.9", requires=">=3.6.2,<3.9"))
    assert chosen(tmp_path)[0] == "3.8"


def test_classifiers_are_read_from_setup_py_and_setup_cfg_too(tmp_path: Path) -> None:
    first = write_tree(tmp_path / "a", {"setup.py": (
        "from setuptools import setup\nC = ['Programming Language :: Python :: 3.7']\nsetup(name='x', classifiers=C)\n"
    )})  # fmt: skip
    second = write_tree(tmp_path / "b", {"setup.cfg": (
        "[metadata]\nname = x\nclassifiers =\n    Programming Language :: Python :: 3.8\n"
    )})  # fmt: skip
    assert chosen(first) == ("3.7", "classifiers in setup.py")
    assert chosen(second) == ("3.8", "classifiers in setup.cfg")


def test_without_classifiers_the_workflow_matrix_decides_and_3_10_is_not_3_1(tmp_path: Path) -> None:
    workflow = "on: push\njobs:\n  t:\n    strategy:\n      matrix:\n        python-version: [3.8, 3.10, '3.14-dev', pypy-3.9]\n"
    write_tree(tmp_path, {**pyproject(), ".github/workflows/t.yml": workflow})
    assert chosen(tmp_path) == ("3.10", ".github/workflows/t.yml jobs.t")


def test_versions_in_other_keys_of_a_workflow_are_not_pythons(tmp_path: Path) -> None:
    workflow = "jobs:\n  t:\n    strategy:\n      matrix:\n        django: ['3.2', '3.12']\n        python: ['3.9']\n"
    write_tree(tmp_path, {**pyproject(), ".github/workflows/t.yml": workflow})
    assert [job.pythons for job in read_jobs(tmp_path)] == [("3.9",)]


def test_the_tox_envlist_and_python_version_file_come_next(tmp_path: Path) -> None:
    first = write_tree(tmp_path / "a", {**pyproject(), "tox.ini": "[tox]\nenvlist = py3{6,7,9}-x, lint\n"})
    second = write_tree(tmp_path / "b", {**pyproject(), "tox.toml": 'env_list = ["3.9", "docs"]\n'})
    third = write_tree(tmp_path / "c", {**pyproject(), ".python-version": "3.7.4\n"})
    assert chosen(first) == ("3.9", "tox.ini [tox] envlist")
    assert chosen(second)[0] == "3.9"
    assert chosen(third) == ("3.7", ".python-version")


def test_with_no_word_at_all_the_newest_that_was_six_months_old_then(tmp_path: Path) -> None:
    write_tree(tmp_path, pyproject())
    assert chosen(tmp_path, "2022-01-10")[0] == "3.9"
    assert chosen(tmp_path, "2022-06-01")[0] == "3.10"


def test_a_missing_interpreter_is_replaced_by_the_next_lower_then_the_next_higher(tmp_path: Path) -> None:
    write_tree(tmp_path, pyproject("3.9", requires=">=3.8"))
    assert chosen(tmp_path, pythons=("3.7", "3.8", "3.11")) == ("3.8", "nearest to 3.9 (classifiers in pyproject.toml)")
    assert chosen(tmp_path, pythons=("3.7", "3.11"))[0] == "3.11"


def test_no_interpreter_that_requires_python_admits_is_a_verdict(tmp_path: Path) -> None:
    write_tree(tmp_path, pyproject("3.9", requires=">=3.9"))
    with pytest.raises(
        Rejected, match=r"3\.9 \(classifiers in pyproject.toml\): no sandbox offers it; offered: 3\.7, 3\.8"
    ) as caught:
        chosen(tmp_path, pythons=("3.7", "3.8"))
    assert caught.value.reason is RejectReason.NO_INTERPRETER


def test_a_python_2_project_is_never_given_python_3(tmp_path: Path) -> None:
    write_tree(tmp_path, pyproject("2.7"))
    with pytest.raises(Rejected) as caught:
        chosen(tmp_path, "2015-01-01", pythons=ALL[1:])
    assert chosen(tmp_path, "2015-01-01")[0] == "2.7"
    assert caught.value.reason is RejectReason.NO_INTERPRETER


def test_a_folder_without_python_is_no_project(tmp_path: Path) -> None:
    write_tree(tmp_path, {"package.json": "{}"})
    with pytest.raises(Rejected) as caught:
        chosen(tmp_path)
    assert caught.value.reason is RejectReason.NOT_PYTHON_PROJECT


@pytest.mark.parametrize(
    ("files", "compiled", "needs"),
    [
        (
            {"setup.py": "from setuptools import setup, Extension\nsetup(ext_modules=[Extension('x', ['x.c'])])\n"},
            "ext_modules in setup.py",
            {"setuptools": "builds setup.py", "wheel": "builds setup.py"},
        ),
        (
            {
                "setup.py": "try:\n    from Cython.Build import cythonize\nexcept ImportError:\n    pass\n"
                "from setuptools import setup\nsetup(ext_modules=cythonize('x.pyx'))\n",
                "pyproject.toml": '[build-system]\nrequires = [\n  "setuptools>=40",\n  "numpy==1.13.3"\n]\n',
            },
            "ext_modules in setup.py",
            {
                "cython": "imported by setup.py:2", "numpy==1.13.3": "pyproject.toml:4 requires",
                "setuptools>=40": "pyproject.toml:3 requires", "wheel": "builds setup.py",
            },
        ),
        (
            {"pyproject.toml": '[build-system]\nrequires = ["meson-python"]\nbuild-backend = "mesonpy"\n'},
            "build backend mesonpy",
            {
                "meson": "asked for by meson-python", "meson-python": "pyproject.toml:2 requires",
                "ninja": "asked for by meson-python",
            },
        ),
        (
            {"setup.py": "from setuptools import setup\nsetup(setup_requires=['cffi>1'], cffi_modules=['b.py:f'])\n"},
            "ext_modules in setup.py",
            {"cffi>1": "setup.py:2 setup_requires", "setuptools": "builds setup.py", "wheel": "builds setup.py"},
        ),
        (
            {"pyproject.toml": '[build-system]\nrequires = ["poetry-core"]\n[tool.poetry.build]\nscript = "b.py"\n'},
            "build script of poetry",
            {"poetry-core": "pyproject.toml:2 requires"},
        ),
        ({"setup.py": "from setuptools import setup\nsetup(name='x')\n"}, "", {}),
    ],
)  # fmt: skip
def test_what_builds_a_projects_own_extensions_is_told_with_its_place(
    tmp_path: Path, files: dict[str, str], compiled: str, needs: dict[str, str]
) -> None:
    write_tree(tmp_path, files)
    found = read_declared(tmp_path)
    assert found.compiled == compiled
    assert build_needs(tmp_path, found) == needs


def test_hostile_files_say_nothing_and_run_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "secret.toml"
    outside.write_text('[project]\nname = "stolen"\n')
    tree = write_tree(tmp_path / "tree", {
        "setup.py": f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom setuptools import setup\nsetup(name='x')\n",
        ".github/workflows/a.yml": "a: &a [*a]\n", ".github/workflows/b.yml": "\t:::\n",
        "tox.ini": "no section\n", "setup.cfg": "\x00[",
    })  # fmt: skip
    (tree / "pyproject.toml").symlink_to(outside)
    recipe = detect(tree, as_of=at("2022-06-01"), pythons=ALL)
    assert recipe.layout.name == "x"
    assert not (tmp_path / "ran").exists()
