"""What tests a Python file defines, read from sources of every kind."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swefactory.python_tests import MAX_CHARS, PythonTests, TestNames, python_tests
from swefactory.python_tests import test_names as names_of


@pytest.mark.parametrize(
    ("source", "tests"),
    [
        ("def test_x():\n    assert 1\n", ["test_x"]),
        ("async def test_x():\n    assert await f()\n", ["test_x"]),
        ("import pytest\ndef test_x(): f()\n", ["test_x"]),
        ("from hypothesis import given\n@given(1)\ndef test_x(): f()\n", ["test_x"]),
        ("def test_x():\n    with pytest.raises(E):\n        f()\n", ["test_x"]),
        ("if True:\n    def test_x():\n        assert 1\nelse:\n    def test_y(): assert 2\n", ["test_x", "test_y"]),
        ("try:\n    import x\nexcept ImportError:\n    def test_x(): assert 1\n", ["test_x"]),
        ("with x:\n    def test_x(): assert 1\n", ["test_x"]),
        ("def testCamel(): assert 1\n", ["testCamel"]),
        ("class TestX:\n    def test_y(self):\n        assert 1\n", ["TestX"]),
        ("class TestX(object):\n    @mark\n    def test_y(self): assert 1\n", ["TestX"]),
        ("class XCase(unittest.TestCase):\n    def test_y(self): f()\n", ["XCase"]),
        ("class Checks(BaseTestCase):\n    def testY(self): self.assertEqual(1, 1)\n", ["Checks"]),
        ("class Checks(testsuite.WerkzeugTestCase):\n    def test_y(self): f()\n", ["Checks"]),
        (
            "print 'two'\nclass T(TestCase):\n    def test_y(self):\n        print >>f, 1\n        exec 'x' in y\n",
            ["T"],
        ),
        ("def test_x():\n    try: pass\n    except E, e: raise E, 'x'\n    assert `1` <> 2L\n", ["test_x"]),
        ("def broken(:\n\ndef test_x():\n    assert 1\n", ["test_x"]),
        ("\ufeffdef test_x():\r\n    assert 1\r\n", ["test_x"]),
        ("@pytest.mark.parametrize('a', [1])\ndef test_x(a): f(a)\n", ["test_x"]),
    ],
)
def test_tests_are_found(source: str, tests: list[str]) -> None:
    assert list(python_tests(source).tests) == tests


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def test_connection(url):\n    '''assert that it works'''\n    return connect(url)\n",
        "class Database:\n    def test_connection(self):\n        assert self.url\n        return True\n",
        "class TestClient:\n    def __init__(self): pass\n    def test_get(self): assert 1\n",
        "class TestResponse(Response):\n    def read(self): pass\n",
        "class LiveTestCase(unittest.TestCase):\n    def setUp(self): pass\n",
        "def testament(): assert 1\n",
        "def contest(): assert 1\n",
        "@task\ndef test(ctx):\n    import pytest\n    return pytest.main([])\n",
        "def make():\n    def test_inner(): assert 1\n    return test_inner\n",
        "x = '''\ndef test_x():\n    assert 1\n'''\n",
        "# def test_x(): assert 1\n",
        "def assert_equal(a, b):\n    assert a == b\n",
        "latest = 1\nimport testing\n",
    ],
)
def test_products_define_none(source: str) -> None:
    assert python_tests(source).tests == ()


@pytest.mark.parametrize(
    ("source", "helpers"),
    [
        ("import pytest\n@pytest.fixture\ndef app(): pass\n", ["app"]),
        ("@pytest.fixture(scope='module')\nasync def app(): yield\n", ["app"]),
        ("from pytest import fixture\n@fixture()\ndef app(): pass\n", ["app"]),
        ("@pytest_asyncio.fixture\nasync def app(): pass\n", ["app"]),
        ("@pytest.fixture(name='test_x')\ndef test_app(): pass\n", ["test_app"]),
        ("def pytest_addoption(parser): pass\n", ["pytest_addoption"]),
        ("@app.fixtures\ndef f(): pass\n", []),
    ],
)
def test_fixtures_and_hooks_are_found_and_are_no_tests(source: str, helpers: list[str]) -> None:
    found = python_tests(source)
    assert (list(found.helpers), found.tests) == (helpers, ())


@pytest.mark.parametrize(
    "source",
    [
        "def test_smoke():\n    main()\n",
        "class TestX(Contract):\n    pass\n",
        "from .contract import *\n",
        "test_x = make_test('x')\n",
        "class TestX(Contract):\n    make = f\n",
    ],
)
def test_what_could_run_is_not_yet_a_proof(source: str) -> None:
    found = python_tests(source)
    assert (found.tests, found.could_run) == ((), True)


def test_what_could_not_run_is_told() -> None:
    assert not python_tests("from x import Schema\nSchema(1)\n").could_run


def test_a_projects_own_names_are_followed() -> None:
    names = TestNames(functions=("check_", "*_spec"), classes=("Suite",))
    source = "def check_x(): assert 1\ndef add_spec(): assert 1\ndef test_y(): assert 1\n"
    assert python_tests(source, names).tests == ("check_x", "add_spec")
    assert python_tests("class SuiteOfX:\n    def check_x(self): assert 1\n", names).tests == ("SuiteOfX",)


@pytest.mark.parametrize(
    ("files", "own"),
    [
        ({}, {}),
        ({"pytest.ini": "[pytest]\npython_files = check_*.py\n  *_spec.py\n"}, {"files": ("check_*.py", "*_spec.py")}),
        ({"pyproject.toml": '[tool.pytest.ini_options]\npython_functions = "check_*"\n'}, {"functions": ("check_*",)}),
        ({"pyproject.toml": '[tool.pytest.ini_options]\npython_classes = ["A", "B"]\n'}, {"classes": ("A", "B")}),
        ({"pyproject.toml": "[tool.pytest]\npython_files = ['x.py']\n"}, {"files": ("x.py",)}),
        ({"setup.cfg": "[tool:pytest]\npython_files = x.py\n", "tox.ini": "[tox]\n"}, {"files": ("x.py",)}),
        ({"setup.cfg": "[pytest]\npython_files = x.py\n"}, {}),
        ({"pytest.ini": "[pytest]\n", "setup.cfg": "[tool:pytest]\npython_files = x.py\n"}, {}),
        ({"pytest.ini": "broken", "pyproject.toml": "x", "tox.ini": "[pytest]\npython_files=x\n"}, {"files": ("x",)}),
        ({"pyproject.toml": "tool = 1\n"}, {}),
    ],
)  # fmt: skip
def test_the_first_configuration_with_a_section_for_pytest_decides(
    files: dict[str, str], own: dict[str, tuple[str, ...]]
) -> None:
    assert names_of(files) == TestNames(**own)


def test_a_huge_file_is_read_from_its_beginning() -> None:
    rows = "x = [\n" + "    'row',\n" * (MAX_CHARS // 8) + "]\n"
    assert python_tests("def test_x(): assert 1\n" + rows).tests == ("test_x",)
    assert python_tests("x = " + "(" * 50_000).tests == ()
    assert python_tests("def test_x():\n    assert " + "(" * 5_000 + ")" * 5_000 + "\n").tests == ("test_x",)


@given(st.text(st.sampled_from("deftst_x():\n  @class=\"'\\,\0é\ud800")))
@example("\0")
@example("def test_\ud800(): assert 1")
@example("class (")
@example("@")
@example("from import")
def test_every_text_has_an_answer(source: str) -> None:
    assert isinstance(python_tests(source), PythonTests)
