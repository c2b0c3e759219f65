"""What tests a Python file defines, read from its syntax. One property: no file is run, and every text has an answer.

    def test_x(): assert …               a test, also below `if`, `try` and `with`
    class TestX: def test_y(self): …     a test, unless it has an __init__ (pytest leaves such a class out)
    class XTests(unittest.TestCase): …   a test, with methods that are tests
    @pytest.fixture, def pytest_addoption   for tests, but no test

A name alone proves nothing, as products have a `test_connection` too: the function has to assert something, or its
file to import a library for tests. tree-sitter reads Python 2 and broken syntax as well; of a huge file only the
beginning is read. What a project calls its tests follows its pytest configuration. Pure.
"""

import configparser
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import tree_sitter_python
from tree_sitter import Language, Node, Parser

MAX_CHARS = 2 * 2**20
CONFIGURATION_FILES = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
_LIBRARIES = re.compile(
    r"(?:pytest\w*|_pytest|unittest2?|nose2?|hypothesis|testtools|testscenarios|mock|absl\.testing|twisted\.trial"
    r"|django\.test|numpy\.testing|pandas\.testing|asynctest|aiounittest|behave|ward|doctest)(?:\..*)?"
)
_FIXTURE = re.compile(r"@\s*(?:pytest\w*\s*\.\s*)?(?:yield_)?fixture\b")
_HOOK = re.compile(r"pytest_[a-z_]+")
_ASSERTING = re.compile(
    r"(?:self|cls|case)\.(?:assert|fail|skip)\w*|assert_?\w*|raises|(?:np|numpy)\.testing\..+"
    r"|pytest\.(?:raises|warns|fail|skip|xfail|importorskip|deprecated_call)"
)
_TEST_BASE = re.compile(r"(?:.*[a-z0-9_.])?Tests?(?:Case|Base|Mixin)?|.*TestCase|Tests?[A-Z]\w*|.*\bTests?[A-Z]\w*")
_SPELLED = re.compile(r"test(?:_|[A-Z0-9]|$)")
_NESTED = frozenset((
    "if_statement", "elif_clause", "else_clause", "try_statement", "except_clause", "finally_clause", "with_statement",
    "for_statement", "block", "ERROR", "decorated_definition",
))  # fmt: skip


@dataclass(frozen=True)
class TestNames:
    """What pytest collects: prefixes or patterns of functions and classes, patterns of files."""

    __test__ = False
    functions: tuple[str, ...] = ("test",)
    classes: tuple[str, ...] = ("Test",)
    files: tuple[str, ...] = ("test_*.py", "*_test.py")

    def is_function(self, name: str) -> bool:
        """The prefix `test` stands for a word: `testament` is none."""
        return any(_SPELLED.match(name) if own == "test" else _matches(name, own) for own in self.functions)

    def is_class(self, name: str) -> bool:
        return any(_matches(name, own) for own in self.classes)

    def is_file(self, name: str) -> bool:
        return any(fnmatchcase(name, own) for own in self.files)


@dataclass(frozen=True)
class PythonTests:
    """`tests`, `unproven` (named like tests, nothing else says so) and `helpers` (fixtures, hooks) are names, in the
    file's order. `inherits_tests`: a class or a name could bring tests that stand elsewhere."""

    tests: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    imports_library: bool = False
    inherits_tests: bool = False

    @property
    def could_run(self) -> bool:
        """Whether pytest, told to run the file, could find a test in it."""
        return bool(self.tests or self.unproven or self.inherits_tests)


@dataclass
class _Found:
    tests: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    helpers: list[str] = field(default_factory=list)
    imports_library: bool = False
    inherits_tests: bool = False


_STANDARD = TestNames()
_LANGUAGE = Language(tree_sitter_python.language())


def python_tests(text: str, names: TestNames = _STANDARD) -> PythonTests:
    """The tests that the Python file with this text defines."""
    source = text[:MAX_CHARS].encode("utf-8", "replace")
    found = _Found()
    for node in _top_level(Parser(_LANGUAGE).parse(source).root_node):
        _read(node, names, found)
    if found.imports_library:
        found.tests, found.unproven = found.tests + found.unproven, []
    return PythonTests(
        tests=tuple(found.tests),
        unproven=tuple(found.unproven),
        helpers=tuple(found.helpers),
        imports_library=found.imports_library,
        inherits_tests=found.inherits_tests,
    )


def test_names(configuration: Mapping[str, str]) -> TestNames:
    """What a project's pytest configuration calls its tests; `configuration` holds the texts of CONFIGURATION_FILES
    that there are. The first with a section for pytest decides, as pytest does it."""
    for path in CONFIGURATION_FILES:
        section = _section(path, configuration.get(path, ""))
        if section is not None:
            return TestNames(
                functions=section.get("python_functions") or _STANDARD.functions,
                classes=section.get("python_classes") or _STANDARD.classes,
                files=section.get("python_files") or _STANDARD.files,
            )
    return _STANDARD


test_names.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test of ours


# ---------------------------------------------------------------- syntax


def _top_level(root: Node) -> Iterator[Node]:
    """The statements that run when the file is imported, those in branches too; a loop, as files nest without end."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node is root or node.type in _NESTED:
            waiting += reversed(node.named_children)
            continue
        yield node


def _read(node: Node, names: TestNames, found: _Found) -> None:
    match node.type:
        case "function_definition":
            _read_function(node, names, found)
        case "class_definition":
            _read_class(node, names, found)
        case "import_statement" | "import_from_statement":
            found.imports_library |= any(_LIBRARIES.fullmatch(name) for name in _imported(node))
            found.inherits_tests |= any(child.type == "wildcard_import" for child in node.children)
        case "expression_statement":
            found.inherits_tests |= _assigns_test(node, names)


def _read_function(node: Node, names: TestNames, found: _Found) -> None:
    name = _name(node)
    if any(_FIXTURE.match(_text(decorator)) for decorator in _decorators(node)) or _HOOK.fullmatch(name):
        found.helpers.append(name)
    elif names.is_function(name):
        (found.tests if _asserts(node) else found.unproven).append(name)


def _read_class(node: Node, names: TestNames, found: _Found) -> None:
    name, bases = _name(node), _bases(node)
    methods = [m for m in _top_level(body) if m.type == "function_definition"] if (body := _field(node, "body")) else []
    is_case = any(_TEST_BASE.fullmatch(base) for base in bases)
    if not (is_case or names.is_class(name)):
        return
    if not is_case and any(_name(method) == "__init__" for method in methods):
        return
    tests = [method for method in methods if names.is_function(_name(method))]
    if tests:
        is_proven = is_case or any(map(_asserts, tests))
        (found.tests if is_proven else found.unproven).append(name)
    found.inherits_tests |= bool(bases)


def _asserts(function: Node) -> bool:
    """Whether an assertion stands in the function, or a call or a decorator that can only be a test's."""
    if any(re.search(r"@\s*(?:pytest|mock|given|unittest|parameterized)\b", _text(d)) for d in _decorators(function)):
        return True
    waiting = [function]
    while waiting:
        node = waiting.pop()
        if node.type == "assert_statement":
            return True
        if node.type == "call" and (called := _field(node, "function")) and _ASSERTING.fullmatch(_text(called)):
            return True
        waiting += node.named_children
    return False


def _decorators(node: Node) -> list[Node]:
    parent = node.parent
    is_decorated = parent is not None and parent.type == "decorated_definition"
    return [child for child in parent.children if child.type == "decorator"] if parent and is_decorated else []


def _bases(node: Node) -> list[str]:
    arguments = _field(node, "superclasses")
    return [_text(child) for child in arguments.named_children] if arguments else []


def _imported(node: Node) -> list[str]:
    """Full names of modules that an import names."""
    if module := _field(node, "module_name"):
        names = [_text(child).split(" as ")[0] for child in node.children_by_field_name("name")]
        return [_text(module), *(f"{_text(module)}.{name}" for name in names)]
    return [_text(child).split(" as ")[0].strip() for child in node.named_children]


def _assigns_test(node: Node, names: TestNames) -> bool:
    """`test_x = make_test(…)`, `TestX = suite.TestX`."""
    first = node.named_children[0] if node.named_children else None
    left = _field(first, "left") if first is not None and first.type == "assignment" else None
    return (
        left is not None
        and left.type == "identifier"
        and bool(re.match(r"test_|Test[A-Z]", _text(left)) or names.is_class(_text(left)))
    )


def _field(node: Node, name: str) -> Node | None:
    return node.child_by_field_name(name)


def _name(node: Node) -> str:
    name = _field(node, "name")
    return _text(name) if name else ""


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


# ---------------------------------------------------------------- configuration


def _section(path: str, text: str) -> dict[str, tuple[str, ...]] | None:
    """The options of the section for pytest, each as its words; None without such a section."""
    options: Mapping[str, object] | None
    if path.endswith(".toml"):
        options = _toml_options(text)
    else:
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        try:
            parser.read_string(text)
        except configparser.Error:
            return None
        name = "tool:pytest" if path == "setup.cfg" else "pytest"
        options = dict(parser[name]) if parser.has_section(name) else None
    return None if options is None else {name: _strings(value) for name, value in options.items()}


def _toml_options(text: str) -> Mapping[str, object] | None:
    try:
        found: object = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    for key in ("tool", "pytest"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    options = found.get("ini_options", found)
    return options if isinstance(options, Mapping) else None


def _strings(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _matches(name: str, own: str) -> bool:
    return fnmatchcase(name, own) if re.search(r"[*?\[]", own) else name.startswith(own)
