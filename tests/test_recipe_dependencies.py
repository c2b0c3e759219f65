"""What is installed for the tests of a checkout, from every place that may say it."""

# ruff: noqa: E501  (tables of file contents read best unwrapped)

from datetime import UTC, datetime
from pathlib import Path

import pytest

from swefactory.protocols import Recipe
from swefactory.recipes.imports import missing_in, needed_by
from swefactory.recipes.python import detect
from swefactory.recipes.requirements import clean, poetry_requirement, poetry_specifier
from tests.fake_environments import write_tree

HEAD = '[project]\nname = "My.Pkg"\nversion = "1"\n'


def recipe(folder: Path, files: dict[str, str]) -> Recipe:
    return detect(write_tree(folder, files), as_of=datetime(2022, 6, 1, tzinfo=UTC), pythons=("3.9", "3.10"))


def requirements(folder: Path, files: dict[str, str]) -> tuple[str, ...]:
    return recipe(folder, files).requirements


def test_run_time_extras_and_nothing_of_the_project_itself(tmp_path: Path) -> None:
    text = HEAD + (
        'dependencies = ["idna>=2"]\n[project.optional-dependencies]\n'
        'tests = ["my_pkg[speed]", "pytest>=6", "hypothesis"]\nspeed = ["ujson"]\ndocs = ["sphinx"]\n'
    )
    assert requirements(tmp_path, {"pyproject.toml": text}) == ("hypothesis", "idna>=2", "pytest>=6", "ujson")


def test_pytest_comes_even_when_nothing_names_it(tmp_path: Path) -> None:
    found = recipe(tmp_path, {"pyproject.toml": HEAD})
    assert (found.requirements, found.why["pytest"]) == (("pytest",), "nothing names it")


def test_dependency_groups_follow_their_includes_and_survive_a_cycle(tmp_path: Path) -> None:
    text = HEAD + (
        '[dependency-groups]\nTests = ["pytest", {include-group = "base"}]\n'
        'base = ["attrs", {include-group = "tests"}]\ndev = ["black", "twine"]\n'
    )
    assert requirements(tmp_path, {"pyproject.toml": text}) == ("attrs", "pytest")


def test_development_lists_count_only_when_no_test_list_exists_and_lose_their_tools(tmp_path: Path) -> None:
    dev = (
        HEAD
        + '[project.optional-dependencies]\ndev = ["pytest", "mock", "sphinx-rtd-theme", "mypy", "flake8-bugbear"]\n'
    )
    assert requirements(tmp_path / "a", {"pyproject.toml": dev}) == ("mock", "pytest")
    both = dev + 'test = ["pytest"]\n'
    assert requirements(tmp_path / "b", {"pyproject.toml": both}) == ("pytest",)


def test_what_tests_ask_for_by_name_is_kept(tmp_path: Path) -> None:
    text = HEAD + '[project.optional-dependencies]\ntests = ["pytest", "mypy", "sphinx", "tox"]\n'
    assert requirements(tmp_path, {"pyproject.toml": text}) == ("pytest", "sphinx")


@pytest.mark.parametrize(
    "test", ["import mypy.api", "    from mypy import api", 'run(["mypy", "x.py"])', "'mypy x.py'"]
)
def test_a_type_checker_and_its_stubs_are_kept_where_a_test_runs_one(tmp_path: Path, test: str) -> None:
    text = HEAD + '[project.optional-dependencies]\ntests = ["pytest", "mypy", "trio-typing", "types-mock"]\n'
    silent = {"pyproject.toml": text, "tests/test_a.py": "# mypy is wrong here\n", "lint.py": "import mypy\n"}
    assert requirements(tmp_path / "a", silent) == ("pytest",)
    spoken = {"pyproject.toml": text, "tests/test_a.py": f"import os\n{test}\n"}
    assert requirements(tmp_path / "b", spoken) == ("mypy", "pytest", "trio-typing", "types-mock")


def test_what_the_project_itself_runs_with_is_kept_though_it_be_a_type_checker(tmp_path: Path) -> None:
    text = HEAD + 'dependencies = ["mypy"]\n[project.optional-dependencies]\ntests = ["pytest", "mypy"]\n'
    assert requirements(tmp_path, {"pyproject.toml": text}) == ("mypy", "pytest")


def test_setup_py_is_followed_through_names_and_arithmetic(tmp_path: Path) -> None:
    source = (
        "import os, sys\nfrom setuptools import setup, find_packages\n"
        "REQUIRES = ['six>=1.9']\nEXTRAS = {'tests': ['pytest', 'pytz'], 'lint': ['flake8']}\n"
        "EXTRAS['dev'] = EXTRAS['tests'] + EXTRAS['lint']\nREQUIRES.append('idna')\n"
        "if sys.version_info < (3,):\n    REQUIRES.append('futures')\n"
        "META = dict(name='x', install_requires=REQUIRES)\n"
        "setup(extras_require=EXTRAS, tests_require=['mock', os.environ['X']], packages=find_packages(), **META)\n"
    )
    assert requirements(tmp_path, {"setup.py": source}) == ("idna", "mock", "pytest", "pytz", "six>=1.9")


def test_setup_cfg_with_markers_and_comments(tmp_path: Path) -> None:
    text = (
        "[metadata]\nname = x\n[options]\ninstall_requires =\n  idna  # names\n  tomli; python_version < '3.11'\n"
        "[options.extras_require]\ntesting =\n  pytest\n  freezegun\n"
    )
    assert requirements(tmp_path, {"setup.cfg": text, "setup.py": "from setuptools import setup\nsetup()\n"}) == (
        "freezegun", "idna", "pytest", 'tomli; python_version < "3.11"',
    )  # fmt: skip


def test_requirements_files_follow_includes_and_constraints(tmp_path: Path) -> None:
    found = recipe(tmp_path, {
        "setup.py": "from setuptools import setup\nsetup(name='x')\n",
        "requirements/tests.txt": (
            "# by hand\n-r base.txt\n-c ../constraints.txt\n-e .\npytest==7.1.2 \\\n    --hash=sha256:00\n"
            "git+https://example.org/a/b.git#egg=flask\nwerkzeug @ https://example.org/w.zip\n--index-url https://x/\n"
        ),
        "requirements/base.txt": "idna==3.3    # via -r base.in\n-r tests.txt\n",
        "constraints.txt": "attrs<22\n",
    })  # fmt: skip
    assert found.requirements == ("flask", "idna==3.3", "pytest==7.1.2", "werkzeug")
    assert found.constraints == ("attrs<22",)
    assert found.origins["idna==3.3"] == "requirements/base.txt:1"
    assert found.origins["pytest==7.1.2"] == "requirements/tests.txt:5"


def test_a_requirements_file_at_the_root_counts_when_it_names_pytest_and_nothing_better_does(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": HEAD + 'dependencies = ["idna"]\n[project.optional-dependencies]\nhttp2 = ["h2"]\n',
        "requirements.txt": "-e .[http2]\npytest==7.1\nblack\n",
    }
    assert requirements(tmp_path, files) == ("h2", "idna", "pytest==7.1")


def test_tox_deps_extras_and_groups(tmp_path: Path) -> None:
    ini = (
        "[tox]\nenvlist = py39\n[testenv]\nextras = fast\ndependency_groups = checks\n"
        "deps =\n    pytest>=6\n    -r {toxinidir}/more.txt\n    py27: mock\n    {toxinidir}[fast]\n[testenv:docs]\ndeps = sphinx\n"
    )
    text = HEAD + '[project.optional-dependencies]\nfast = ["ujson"]\n[dependency-groups]\nchecks = ["pretend"]\n'
    files = {"pyproject.toml": text, "tox.ini": ini, "more.txt": "idna\n"}
    assert requirements(tmp_path / "ini", files) == ("idna", "pretend", "pytest>=6", "ujson")
    native = text + '[tool.tox.env_run_base]\ndeps = ["pytest", "blinker"]\ndependency_groups = ["checks"]\n'
    assert requirements(tmp_path / "toml", {"pyproject.toml": native}) == ("blinker", "pretend", "pytest")


def test_nox_sessions_named_for_tests(tmp_path: Path) -> None:
    nox = (
        "import nox\nDEPS = ['pytest', 'coverage']\n"
        "@nox.session\ndef tests(session):\n    session.install('-r', 'more.txt', *DEPS)\n    session.install('.[x]', silent=True)\n"
        "@nox.session\ndef lint(session):\n    session.install('pylint')\n"
    )
    files = {"pyproject.toml": HEAD, "noxfile.py": nox, "more.txt": "pretend\n"}
    assert requirements(tmp_path, files) == ("coverage", "pretend", "pytest")


def test_poetry_groups_and_their_operators(tmp_path: Path) -> None:
    text = (
        '[tool.poetry]\nname = "x"\nversion = "1"\n[tool.poetry.dependencies]\npython = "^3.8"\nidna = "^3.1"\n'
        'ujson = {version = "~5.1", optional = true}\n[tool.poetry.group.test.dependencies]\npytest = "^7"\n'
        'tomli = {version = "*", python = "<3.11"}\nlocal = {path = "../local"}\n[tool.poetry.group.dev.dependencies]\nblack = "*"\n'
    )
    assert requirements(tmp_path, {"pyproject.toml": text}) == (
        "idna<4,>=3.1", "pytest<8,>=7", 'tomli; python_version < "3.11"',
    )  # fmt: skip


def test_pdm_hatch_flit_and_pipfile_development_lists(tmp_path: Path) -> None:
    pdm = HEAD + '[tool.pdm.dev-dependencies]\ntest = ["pytest", "pretend"]\n'
    hatch = HEAD + '[tool.hatch.envs.default]\ndependencies = ["pytest", "mock"]\n'
    flit = '[tool.flit.metadata]\nmodule = "x"\nrequires = ["idna"]\n[tool.flit.metadata.requires-extra]\ntest = ["pytest"]\n'
    pipfile = '[packages]\nidna = "*"\n[dev-packages]\npytest = "==7.1"\nblack = "*"\n'
    assert requirements(tmp_path / "pdm", {"pyproject.toml": pdm}) == ("pretend", "pytest")
    assert requirements(tmp_path / "hatch", {"pyproject.toml": hatch}) == ("mock", "pytest")
    assert requirements(tmp_path / "flit", {"pyproject.toml": flit}) == ("idna", "pytest")
    assert requirements(tmp_path / "pipfile", {"Pipfile": pipfile, "x.py": ""}) == ("idna", "pytest==7.1")


def test_plugins_that_pytest_s_own_options_need(tmp_path: Path) -> None:
    text = HEAD + '[tool.pytest.ini_options]\naddopts = "--cov=x -n auto -ra"\nasyncio_mode = "auto"\n'
    assert requirements(tmp_path, {"pyproject.toml": text}) == (
        "pytest",
        "pytest-asyncio",
        "pytest-cov",
        "pytest-xdist",
    )


def test_the_projects_own_lock_comes_as_constraints(tmp_path: Path) -> None:
    uv = (
        '[[package]]\nname = "pytest"\nversion = "8.4"\nsource = { registry = "https://r" }\n'
        '[[package]]\nname = "x"\nsource = { editable = "." }\nversion = "1"\n'
        '[[package]]\nname = "numpy"\nversion = "1"\n[[package]]\nname = "numpy"\nversion = "2"\n'
    )
    found = recipe(tmp_path / "uv", {"pyproject.toml": HEAD, "uv.lock": uv})
    assert (found.constraints, found.why["constraints"]) == (("pytest==8.4",), "uv.lock")
    pipenv = '{"default": {"idna": {"version": "==3.1"}}, "develop": {"pytest": {"git": "x"}}}'
    found = recipe(tmp_path / "pipenv", {"pyproject.toml": HEAD, "Pipfile.lock": pipenv})
    assert found.constraints == ("idna==3.1",)


def test_build_requirements_come_too(tmp_path: Path) -> None:
    text = '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\n' + HEAD
    assert requirements(tmp_path, {"pyproject.toml": text}) == ("hatch-vcs", "hatchling", "pytest")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-e .", "."), ("-e .[test, dev]", ".[test,dev]"), ("{toxinidir}[x]", ".[x]"), ("file:.", "."), (".", "."),
        ('"attrs >= 19.2"', "attrs>=19.2"), ("a>=3.*", "a>=3"), ("--pre", ""), ("./local", ""), ("https://x/y.whl", ""),
        ("-e git+https://x/y#egg=some.name", "some.name"), ("# note", ""), ("a # b", "a"), ("a~=1.2;extra=='x'", 'a~=1.2; extra == "x"'),
    ],
)  # fmt: skip
def test_a_line_is_cleaned(line: str, expected: str) -> None:
    assert clean(line) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("^1.2.3", ">=1.2.3,<2"), ("^0.2.3", ">=0.2.3,<0.3"), ("^0.0.3", ">=0.0.3,<0.0.4"), ("^0", ">=0,<1"),
        ("~1.2.3", ">=1.2.3,<1.3"), ("~1", ">=1,<2"), ("*", ""), ("1.2.*", "==1.2.*"), ("1.2", "==1.2"),
        (">=1,<2", ">=1,<2"), ("~2.7 || ^3.5", ">=3.5,<4"), ("^2.0b1", ">=2.0b1,<3"), ("~=1.4", "~=1.4"), (">=1 <2", ">=1,<2"),
    ],
)  # fmt: skip
def test_poetry_s_operators_as_pep_440(spec: str, expected: str) -> None:
    assert poetry_specifier(spec) == expected


def test_poetry_entries_with_extras_and_several_constraints() -> None:
    assert poetry_requirement("a", {"version": "^1", "extras": ["x", "y"]}) == "a[x,y]<2,>=1"
    assert poetry_requirement("a", [{"version": "1", "python": "<3.8"}, {"version": "2", "python": ">=3.8"}]) == (
        'a==2; python_version >= "3.8"'
    )


def test_test_files_name_distributions_by_imports_fixtures_and_marks() -> None:
    source = (
        "import simplejson as json, os\nfrom dateutil.tz import UTC\nfrom . import base\nimport nobody_knows_this\n"
        "try:\n    import numpy\nexcept ImportError:\n    pass\n"
        "@pytest.mark.asyncio\nasync def test_a(mocker, benchmark): ...\n"
    )
    conftest = "import pytest\n@pytest.fixture\ndef benchmark(): ...\n"
    assert needed_by([source, conftest]) == {"simplejson", "python-dateutil", "pytest-mock", "pytest-asyncio"}


def test_the_missing_module_is_read_from_python_s_words() -> None:
    assert missing_in("ModuleNotFoundError: No module named 'yaml.loader'") == "pyyaml"
    assert missing_in("ModuleNotFoundError: No module named 'never_heard_of'") == ""
