"""How a checkout is made importable without a build, and that Python then takes it for an installed project."""

# ruff: noqa: E501  (tables of file contents read best unwrapped)

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from swefactory.checkouts import run_git
from swefactory.protocols import ProjectLayout, Recipe
from swefactory.recipes.generated_files import generated_files, write_generated
from swefactory.recipes.layout import import_names, write_project
from swefactory.recipes.python import detect, spanning
from swefactory.recipes.versions import from_tags
from tests.fake_environments import write_tree

HEAD = '[project]\nname = "x"\n'


def layout(folder: Path, files: dict[str, str], fallback: str = "") -> ProjectLayout:
    write_tree(folder, files)
    at = datetime(2022, 6, 1, tzinfo=UTC)
    return detect(folder, as_of=at, pythons=("3.9",), fallback_version=fallback).layout


@pytest.mark.parametrize(
    ("files", "roots"),
    [
        ({"pyproject.toml": HEAD, "x/__init__.py": ""}, (".",)),
        ({"pyproject.toml": HEAD, "src/x/__init__.py": ""}, ("src",)),
        ({"pyproject.toml": HEAD, "src/x.py": ""}, ("src",)),
        (
            {"setup.py": "from setuptools import setup\nsetup(name='x', package_dir={'': 'lib'})\n", "lib/x.py": ""},
            ("lib",),
        ),
        (
            {"setup.py": "from setuptools import setup\nsetup(package_dir={'x': 'lib/x'})\n", "lib/x/__init__.py": ""},
            ("lib",),
        ),
        ({"setup.cfg": "[metadata]\nname=x\n[options]\npackage_dir =\n    = python\n", "python/x.py": ""}, ("python",)),
        (
            {"pyproject.toml": HEAD + "[tool.setuptools.packages.find]\nwhere = ['a', 'b']\n", "a/y": "", "b/y": ""},
            ("a", "b"),
        ),
        (
            {"pyproject.toml": HEAD + "[tool.hatch.build.targets.wheel]\npackages = ['lib/x']\n", "lib/x/a.py": ""},
            ("lib",),
        ),
        (
            {"pyproject.toml": "[tool.poetry]\nname='x'\npackages=[{include='x', from='lib'}]\n", "lib/x/a.py": ""},
            ("lib",),
        ),
        ({"pyproject.toml": HEAD + "[tool.setuptools.package-dir]\n'' = '../out'\n", "x/__init__.py": ""}, (".",)),
    ],
)
def test_source_roots_are_found_and_stay_inside_the_checkout(
    tmp_path: Path, files: dict[str, str], roots: tuple[str, ...]
) -> None:
    assert layout(tmp_path, files).source_roots == roots


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"pyproject.toml": HEAD + 'version = "1.2"\n'}, "1.2"),
        (
            {"pyproject.toml": HEAD + "[tool.setuptools.dynamic]\nversion = {attr = 'x.v.V'}\n", "x/v.py": "V = '3.1'"},
            "3.1",
        ),
        (
            {
                "setup.cfg": "[metadata]\nname = x\nversion = attr: x.__version__\n",
                "src/x/__init__.py": "__version__ = '2.0'",
            },
            "2.0",
        ),
        ({"setup.cfg": "[metadata]\nname = x\nversion = file: V.txt\n", "V.txt": "4.0\n"}, "4.0"),
        (
            {
                "pyproject.toml": HEAD + "[tool.hatch.version]\npath = 'x/_v.py'\n",
                "x/_v.py": "__version__ = '5.0.dev1'",
            },
            "5.0.dev1",
        ),
        ({"setup.py": "from setuptools import setup\nV = '6.0'\nsetup(name='x', version=V)\n"}, "6.0"),
        (
            {
                "setup.py": "import re\nfrom setuptools import setup\nsetup(name='x', version=f())",
                "x.py": "__version__ = '7'",
            },
            "7",
        ),
        ({"pyproject.toml": HEAD, "VERSION": "8.1\n"}, "8.1"),
        ({"pyproject.toml": HEAD + "dynamic = ['version']\n"}, "9.9"),
        ({"pyproject.toml": HEAD + 'version = "not a version"\n'}, "9.9"),
    ],
)
def test_the_version_is_read_from_where_it_is_kept(tmp_path: Path, files: dict[str, str], version: str) -> None:
    assert layout(tmp_path, files, fallback="9.9").version == version


def test_without_any_version_there_is_still_a_valid_one(tmp_path: Path) -> None:
    assert layout(tmp_path, {"pyproject.toml": HEAD}).version == "0.0.0.dev0"


def test_the_fallback_is_the_newest_release_tag_reachable_from_the_commit(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "--quiet", "--initial-branch=main", "--template=")
    for tag in ("1.9.0", "v1.10.0", "2.0.0rc1", "docs-only"):
        run_git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", tag)
        run_git(tmp_path, "tag", tag)
    base = run_git(tmp_path, "rev-parse", "HEAD").decode().strip()
    run_git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "later")
    run_git(tmp_path, "tag", "3.0.0")
    assert from_tags(tmp_path, base) == "1.10.0"
    assert from_tags(tmp_path, "0" * 40) == ""


def test_entry_points_of_every_spelling(tmp_path: Path) -> None:
    expected = {"console_scripts": {"run": "x.cli:main"}, "pytest11": {"x": "x.plugin"}}
    pep621 = HEAD + '[project.scripts]\nrun = "x.cli:main"\n[project.entry-points.pytest11]\nx = "x.plugin"\n'
    cfg = "[metadata]\nname = x\n[options.entry_points]\nconsole_scripts =\n  run = x.cli:main [fast]\npytest11 =\n  x = x.plugin\n"
    as_dict = "from setuptools import setup\nsetup(name='x', entry_points={'console_scripts': 'run = x.cli:main', 'pytest11': ['x=x.plugin']})\n"
    as_text = "from setuptools import setup\nsetup(name='x', entry_points='''\n[console_scripts]\nrun=x.cli:main\n[pytest11]\nx = x.plugin\n''')\n"
    for number, files in enumerate(
        [{"pyproject.toml": pep621}, {"setup.cfg": cfg}, {"setup.py": as_dict}, {"setup.py": as_text}]
    ):
        assert layout(tmp_path / str(number), files).entry_points == expected


def test_a_smoke_test_imports_the_package_of_the_projects_name_or_all_it_holds(tmp_path: Path) -> None:
    write_tree(tmp_path, {"my_pkg/__init__.py": "", "tests/__init__.py": "", "setup.py": "", "other/__init__.py": ""})
    assert import_names(tmp_path, ProjectLayout("My-Pkg", "1")) == ("my_pkg",)
    assert import_names(tmp_path, ProjectLayout("unlike", "1")) == ("my_pkg", "other")


def test_a_fix_that_moves_the_sources_is_imported_before_and_after(tmp_path: Path) -> None:
    base, after = tmp_path / "base", tmp_path / "after"
    write_tree(base, {"pyproject.toml": HEAD, "x/__init__.py": ""})
    write_tree(after, {"pyproject.toml": HEAD, "src/x/__init__.py": ""})
    at = datetime(2022, 6, 1, tzinfo=UTC)
    recipe = spanning(detect(base, as_of=at, pythons=("3.9",)), after)
    assert recipe.layout.source_roots == (".", "src")
    assert import_names(after, recipe.layout) == import_names(base, recipe.layout) == ("x",)
    (after / "pyproject.toml").unlink()
    assert spanning(recipe, after) == recipe  # no project any more: nothing to add


def test_python_takes_the_written_folder_for_an_installed_project(tmp_path: Path) -> None:
    write_tree(tmp_path / "testbed", {"src/x/__init__.py": "here = 1\n", "src/x/cli.py": "def main(): return 3\n"})
    described = ProjectLayout(
        "My.Pkg", "22.1.0", ("src",), {"console_scripts": {"run": "x.cli:main"}, "pytest11": {"x": "x.cli"}},
        ("idna>=2", 'tomli; python_version < "3"'),
    )  # fmt: skip
    write_project(described, tmp_path / "project")
    pth = tmp_path / "project" / "project.pth"
    assert pth.read_text() == "/testbed/src\n"
    pth.write_text(pth.read_text().replace("/testbed", str(tmp_path / "testbed")))
    program = (
        "import site, json, sys; site.addsitedir(sys.argv[1]); import x, importlib.metadata as m\n"
        "eps = m.entry_points(group='pytest11')\n"
        "print(json.dumps([m.version('my-pkg'), x.here, [e.name for e in eps if e.value == 'x.cli'],"
        " m.requires('My.Pkg'), m.entry_points(group='console_scripts')['run'].load()()]))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, str(tmp_path / "project")], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["22.1.0", 1, ["x"], ["idna>=2", 'tomli; python_version < "3"'], 3]
    script = tmp_path / "project" / "bin" / "run"
    assert script.read_text().startswith("#!/opt/env/bin/python\n")
    assert script.stat().st_mode & 0o111


def test_names_that_would_leave_the_folder_or_break_a_reader_are_left_out(tmp_path: Path) -> None:
    evil = {"console_scripts": {"../../evil": "x:y", "ok": "x:y; import os"}, "a]\n[pytest11": {"x": "y"}}
    write_project(ProjectLayout("x", "1", (".",), evil), tmp_path / "project")
    assert not list(tmp_path.rglob("evil"))
    text = (tmp_path / "project" / "x-1.dist-info" / "entry_points.txt").read_text()
    assert text == "[console_scripts]\n../../evil = x:y\n"  # a name is only text here; it made no file
    assert (
        layout(tmp_path / "tree", {"pyproject.toml": '[project]\nname = "../../x"\n', "pkg/__init__.py": ""}).name
        == "pkg"
    )


@pytest.mark.parametrize(
    ("files", "path", "said"),
    [
        ({"pyproject.toml": '[tool.setuptools_scm]\nwrite_to = "pkg/_version.py"\n'}, "pkg/_version.py", "version = '1.2'"),
        ({"pyproject.toml": '[tool.hatch.build.hooks.vcs]\nversion-file = "pkg/v.py"\n'}, "pkg/v.py", "version_tuple = (1, 2)"),
        ({"pyproject.toml": '[tool.setuptools_scm]\nversion_file = "pkg/v.py"\nversion_file_template = "V = {version!r}"\n'}, "pkg/v.py", "V = '1.2'\n"),
        ({"pyproject.toml": '[tool.pdm.version]\nsource = "scm"\nwrite_to = "pkg/v.txt"\n'}, "pkg/v.txt", "1.2\n"),
        ({"setup.py": "from setuptools import setup\nsetup(use_scm_version={'write_to': 'pkg/_version.py'})\n"}, "pkg/_version.py", "__version__ = version = '1.2'"),
    ],
)  # fmt: skip
def test_a_version_file_that_a_build_would_write_is_generated(
    tmp_path: Path, files: dict[str, str], path: str, said: str
) -> None:
    tree = write_tree(tmp_path, {"pkg/__init__.py": "", **files})
    generated = generated_files(tree, "1.2", (".",))
    assert list(generated) == [path]
    assert said in generated[path]
    write_generated(ProjectLayout("pkg", "1.2", generated_files=generated), tree)
    assert said in (tree / path).read_text()


def test_a_generated_file_never_takes_the_place_of_one_nor_leaves_the_tree(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"pkg/v.py": "kept", "pyproject.toml": (
        '[tool.setuptools_scm]\nwrite_to = "pkg/v.py"\nversion_file = "../out.py"\nversion_file_template = "{version:>99999999}"\n'
    )})  # fmt: skip
    assert generated_files(tree, "1.2", (".",)) == {}
    (tree / "link").symlink_to(tmp_path)
    write_generated(ProjectLayout("pkg", "1", generated_files={"pkg/v.py": "no", "link/out.py": "no"}), tree)
    assert (tree / "pkg/v.py").read_text() == "kept"
    assert not (tmp_path / "out.py").exists()


# ---------------------------------------------------------------- a project below the root

JSON = {
    "libs/json/pyproject.toml": (
        '[project]\nname = "acme-json"\nversion = "2.1"\ndependencies = ["idna"]\n'
        '[tool.setuptools_scm]\nwrite_to = "acme_json/_version.py"\n'
    ),
    "libs/json/acme_json/__init__.py": "",
    "libs/core/setup.py": "from setuptools import setup\nsetup(name='acme-core', version='1')\n",
    "requirements-dev.txt": "pytest>=7\npretend\n",
}


def below(folder: Path, files: Mapping[str, str], *tests: str) -> Recipe:
    return detect(write_tree(folder, files), as_of=datetime(2022, 6, 1, tzinfo=UTC), pythons=("3.9",), test_files=tests)


def test_the_project_above_the_tests_is_read_where_the_root_is_none(tmp_path: Path) -> None:
    found = below(tmp_path, JSON, "libs/json/tests/test_a.py", "libs/json/tests/test_b.py", "libs/core/test_c.py")
    assert (found.layout.name, found.layout.version, found.layout.folder) == ("acme-json", "2.1", "libs/json")
    assert found.layout.source_roots == ("libs/json",)
    assert list(found.layout.generated_files) == ["libs/json/acme_json/_version.py"]
    assert found.requirements == ("idna", "pretend", "pytest>=7"), "with the requirements file of the root"


def test_the_projects_it_requires_of_the_same_repository_come_from_the_checkout(tmp_path: Path) -> None:
    poetry = '[tool.poetry]\nname = "acme-http"\nversion = "1"\n[tool.poetry.dependencies]\nidna = "*"\n'
    files = {**JSON, "libs/http/pyproject.toml": poetry + 'acme-json = {path = "../json", develop = true}\n'}
    files["libs/json/pyproject.toml"] = JSON["libs/json/pyproject.toml"].replace('"idna"', '"acme-core>=1", "six"')
    found = below(tmp_path, files, "libs/http/tests/test_a.py")
    assert found.layout.source_roots == ("libs/http", "libs/json", "libs/core")
    assert found.requirements == ("idna", "pretend", "pytest>=7", "six")
    write_project(found.layout, tmp_path / "project")
    stated = (tmp_path / "project" / "acme_core-1.dist-info" / "METADATA").read_text()
    assert "Name: acme-core\nVersion: 1\n" in stated


def test_a_single_project_below_the_root_is_the_one(tmp_path: Path) -> None:
    files = {"python/setup.cfg": "[metadata]\nname = acme\n[options]\npackage_dir =\n  = src\n"}
    files |= {"python/src/acme/__init__.py": "", "docs/setup.py": "", "pyproject.toml": "[tool.black]\n"}
    found = below(tmp_path, files, "tests/test_a.py")
    assert (found.layout.name, found.layout.source_roots) == ("acme", ("python/src",))


def test_a_project_at_the_root_is_not_left_for_one_below(tmp_path: Path) -> None:
    files = {**JSON, "pyproject.toml": '[project]\nname = "acme"\nversion = "3"\n'}
    assert below(tmp_path, files, "libs/json/tests/test_a.py").layout.name == "acme"
