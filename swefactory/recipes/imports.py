"""Which distributions tests need although nothing declares them. One property: only names in the tables here are added.

A module name is no proof of a package's name: installing whatever the registry calls `import foo` would let anybody who
registers that name into an environment. So an unknown module adds nothing, and shows in the smoke test or validation.
"""

import ast
import re
from collections.abc import Iterable

from packaging.utils import canonicalize_name

from swefactory.recipes.files import parse_syntax

# Module -> distribution: what tests import, and what packages forget to declare.
MODULES = {
    "aiohttp": "aiohttp", "anyio": "anyio", "asgiref": "asgiref", "attr": "attrs", "attrs": "attrs",
    "blinker": "blinker", "bs4": "beautifulsoup4", "cachetools": "cachetools", "certifi": "certifi",
    "chardet": "chardet", "click": "click", "cloudpickle": "cloudpickle", "colorama": "colorama",
    "contextlib2": "contextlib2", "distutils": "setuptools", "cryptography": "cryptography",
    "dateutil": "python-dateutil",
    "django": "django", "docutils": "docutils", "exceptiongroup": "exceptiongroup", "execnet": "execnet",
    "fakeredis": "fakeredis", "faker": "faker", "freezegun": "freezegun", "funcsigs": "funcsigs",
    "future": "future", "greenlet": "greenlet", "hypothesis": "hypothesis", "httpx": "httpx",
    "importlib_metadata": "importlib-metadata", "importlib_resources": "importlib-resources",
    "iniconfig": "iniconfig", "itsdangerous": "itsdangerous", "jinja2": "jinja2", "jsonschema": "jsonschema",
    "lxml": "lxml", "markupsafe": "markupsafe", "mock": "mock", "more_itertools": "more-itertools",
    "msgpack": "msgpack", "multidict": "multidict", "nose": "nose", "numpy": "numpy", "packaging": "packaging",
    "pandas": "pandas", "parameterized": "parameterized", "pathlib2": "pathlib2", "pexpect": "pexpect",
    "pkg_resources": "setuptools", "pluggy": "pluggy", "pretend": "pretend", "psutil": "psutil", "py": "py",
    "pydantic": "pydantic", "pygments": "pygments", "pympler": "pympler", "pyparsing": "pyparsing",
    "pytest_asyncio": "pytest-asyncio",
    "pytest_cov": "pytest-cov", "xdist": "pytest-xdist", "pytest_timeout": "pytest-timeout", "flaky": "flaky",
    "pytest_django": "pytest-django", "pytest_benchmark": "pytest-benchmark", "pytest_trio": "pytest-trio",
    "pytest_randomly": "pytest-randomly", "aioresponses": "aioresponses", "pyfakefs": "pyfakefs", "ddt": "ddt",
    "betamax": "betamax", "vcr": "vcrpy", "moto": "moto", "factory": "factory-boy", "scipy": "scipy", "PIL": "pillow",
    "gevent": "gevent", "eventlet": "eventlet", "markdown": "markdown", "jwt": "pyjwt", "redis": "redis",
    "uvicorn": "uvicorn", "starlette": "starlette", "fastapi": "fastapi", "networkx": "networkx", "nose2": "nose2",
    "html5lib": "html5lib", "uvloop": "uvloop", "coverage": "coverage", "marshmallow": "marshmallow", "tox": "tox",
    "jose": "python-jose", "dotenv": "python-dotenv", "usb": "pyusb", "serial": "pyserial", "git": "gitpython",
    "docker": "docker", "paramiko": "paramiko", "ruamel": "ruamel-yaml", "sphinx": "sphinx", "orjson": "orjson",
    "rapidjson": "python-rapidjson", "virtualenv": "virtualenv", "flask": "flask",
    "pytest_httpbin": "pytest-httpbin", "pytest_mock": "pytest-mock",
    "pytz": "pytz", "requests": "requests", "requests_mock": "requests-mock", "responses": "responses",
    "rich": "rich", "setuptools": "setuptools", "simplejson": "simplejson", "six": "six", "sniffio": "sniffio",
    "sortedcontainers": "sortedcontainers", "sqlalchemy": "sqlalchemy", "tabulate": "tabulate",
    "tblib": "tblib", "testfixtures": "testfixtures", "time_machine": "time-machine", "toml": "toml",
    "tomli": "tomli", "toolz": "toolz", "tornado": "tornado", "tqdm": "tqdm", "trio": "trio",
    "trustme": "trustme", "twisted": "twisted", "typing_extensions": "typing-extensions", "tzdata": "tzdata",
    "ujson": "ujson", "urllib3": "urllib3", "watchdog": "watchdog", "werkzeug": "werkzeug", "wheel": "wheel",
    "xmltodict": "xmltodict", "yaml": "pyyaml", "yarl": "yarl", "zope": "zope-interface",
}  # fmt: skip
# Fixture -> the plugin that brings it.
FIXTURES = {
    "mocker": "pytest-mock", "benchmark": "pytest-benchmark", "httpbin": "pytest-httpbin", "freezer": "pytest-freezer",
    "requests_mock": "requests-mock", "subtests": "pytest-subtests", "faker": "faker",
    "httpserver": "pytest-httpserver",
    "datadir": "pytest-datadir", "event_loop": "pytest-asyncio", "aiohttp_client": "pytest-aiohttp",
}  # fmt: skip
# Mark -> the plugin that gives it a meaning: without it an async test is skipped or fails.
MARKS = {"asyncio": "pytest-asyncio", "trio": "pytest-trio", "timeout": "pytest-timeout", "flaky": "flaky"}
_NO_MODULE = re.compile(r"No module named ['\"]?([A-Za-z_]\w*)")


def needed_by(sources: Iterable[str]) -> frozenset[str]:
    """The distributions that these test files (conftest.py among them) import, take fixtures or use marks from."""
    found: set[str] = set()
    own_fixtures: set[str] = set()
    for source in sources:
        module = parse_syntax(source)
        found |= {MODULES[name] for name in _imported(module.body) if name in MODULES}
        for node in ast.walk(module):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    own_fixtures.add(name)
                    found |= {f"fixture {arg.arg}" for arg in node.args.args if arg.arg in FIXTURES}
                case ast.Attribute(value=ast.Attribute(attr="mark"), attr=mark) if mark in MARKS:
                    found.add(MARKS[mark])
                case _:
                    pass
    plugins = {FIXTURES[name] for name in FIXTURES if f"fixture {name}" in found and name not in own_fixtures}
    return frozenset(canonicalize_name(name) for name in found if " " not in name) | plugins


def _imported(body: Iterable[ast.stmt]) -> set[str]:
    """Modules imported at the top level, branches included. What stands in a `try` has a way of going without."""
    found: set[str] = set()
    for statement in body:
        match statement:
            case ast.Import(names=names):
                found |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str() as module, level=0):
                found.add(module.partition(".")[0])
            case ast.If(body=inner, orelse=other):
                found |= _imported(inner) | _imported(other)
            case _:
                pass
    return found


def missing_module(output: str) -> str:
    """The top module that Python's last such words in `output` miss; empty when they miss none."""
    found = _NO_MODULE.findall(output)
    return found[-1] if found else ""


def missing_in(output: str) -> str:
    """The distribution of that module; empty when no table knows it."""
    return MODULES.get(missing_module(output), "")
