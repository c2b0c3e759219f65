"""noxfile.py's test sessions, as a syntax tree. One property: the file is never run.

A test session is named for tests, or runs pytest; helper functions that it calls are read as part of it.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from swefactory.recipes.files import parse_syntax, read_syntax, strings
from swefactory.recipes.python_names import minor_key, versions
from swefactory.recipes.setup_py import called, module_values
from swefactory.recipes.shell import Installs, commands_that_test, installs, paired
from swefactory.recipes.tox_files import TestTool

_TEST_SESSION = re.compile(r"^(unit_?|run_?)?(tests?|pytest|testing|py)(?![a-z])|^(test|tests)_", re.IGNORECASE)
_NOT_TESTS = re.compile(r"lint|docs?|typ|mypy|cover|build|bench|release|lock|integration|down")


def nox_pythons(tree: Path) -> tuple[tuple[str, ...], str]:
    """The versions that the test sessions name, and where."""
    module = read_syntax(tree, "noxfile.py")
    scope = module_values(module, tree)
    found: list[str] = []
    for function in _test_sessions(module):
        for decorator in function.decorator_list:
            if isinstance(decorator, ast.Call):
                for keyword in decorator.keywords:
                    if keyword.arg in ("python", "py"):
                        found += versions(_texts(keyword.value, scope))
    return tuple(sorted(set(found), key=minor_key)), "noxfile.py sessions"


def nox_tool(tree: Path) -> TestTool:
    """What the test sessions install, run, and set in their environment."""
    module = read_syntax(tree, "noxfile.py")
    scope = module_values(module, tree)
    functions = {node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
    sessions = _test_sessions(module)
    parts = [_session(function, functions, scope) for function in sessions]
    names = ", ".join(function.name for function in sessions)
    return TestTool(
        origin=f"noxfile.py {names}",
        lines=tuple(dict.fromkeys(line for part in parts for line in part.lines)),
        groups=tuple(dict.fromkeys(name for part in parts for name in part.groups)),
        commands=tuple(dict.fromkeys(command for part in parts for command in part.commands)),
        variables={name: value for part in parts for name, value in part.variables.items()},
    )


def _test_sessions(module: ast.Module) -> list[ast.FunctionDef]:
    sessions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and _is_session(node)]
    named = [function for function in sessions if _TEST_SESSION.match(_session_name(function))]
    return named or [
        function
        for function in sessions
        if not _NOT_TESTS.search(function.name) and re.search(r"['\"]pytest['\"]", ast.unparse(function))
    ]


def _is_session(function: ast.FunctionDef) -> bool:
    return any(re.search(r"\bsession\b", ast.unparse(decorator)) for decorator in function.decorator_list)


def _session_name(function: ast.FunctionDef) -> str:
    for decorator in function.decorator_list:
        for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
            match keyword:
                case ast.keyword(arg="name", value=ast.Constant(value=str() as name)):
                    return name
                case _:
                    pass
    return function.name


def _session(
    function: ast.FunctionDef, functions: Mapping[str, ast.FunctionDef], scope: Mapping[str, object], depth: int = 0
) -> TestTool:
    lines: list[str] = []
    groups: list[str] = []
    commands: list[str] = []
    variables: dict[str, str] = {}
    known = {**scope, **module_values(ast.Module(body=function.body, type_ignores=[]), Path("/nonexistent"))}
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(attr="install" | "conda_install")):
                found = _installed(node, known)
                lines += found.lines
                groups += found.groups
            case ast.Call(func=ast.Attribute(attr="run" | "run_always" | "run_install")):
                argv = _arguments(node, known)
                found = installs(" ".join(argv))
                lines += found.lines
                groups += found.groups
                commands += [" ".join(words) for words in commands_that_test(" ".join(argv))]
                variables |= _keyword_variables(node, known)
            case ast.Assign(targets=[ast.Subscript() as target], value=ast.Constant(value=str() as value)):
                variables |= _set_variable(target, value)
            case ast.Call(func=ast.Name(id=name)) if name in functions and depth < 3:
                inner = _session(functions[name], functions, scope, depth + 1)
                passed = paired(_arguments(node, known)) if "install" in name else Installs()
                lines += [*inner.lines, *passed.lines]
                groups += [*inner.groups, *passed.groups]
                commands += inner.commands
            case _:
                pass
    return TestTool("", tuple(lines), (), tuple(groups), tuple(commands), variables)


def _set_variable(target: ast.Subscript, value: str) -> dict[str, str]:
    """`session.env["NAME"] = "value"`."""
    match target:
        case ast.Subscript(value=ast.Attribute(attr="env"), slice=ast.Constant(value=str() as name)):
            return {name: value}
        case _:
            return {}


def _installed(call: ast.Call, scope: Mapping[str, object]) -> Installs:
    """`session.install(…)`, and nox's own `*nox.project.dependency_groups(PYPROJECT, "test")`."""
    groups = [
        text
        for node in ast.walk(call)
        if isinstance(node, ast.Call) and called(node) == "dependency_groups"
        for argument in node.args[1:]
        for text in _texts(argument, scope)
    ]
    found = paired(_arguments(call, scope))
    return Installs(found.lines, (*found.groups, *groups))


def _arguments(call: ast.Call, scope: Mapping[str, object]) -> list[str]:
    return [text for argument in call.args for text in _texts(argument, scope)]


def _keyword_variables(call: ast.Call, scope: Mapping[str, object]) -> dict[str, str]:
    for keyword in call.keywords:
        if keyword.arg == "env" and isinstance(keyword.value, ast.Dict):
            pairs = zip(keyword.value.keys, keyword.value.values, strict=True)
            return {
                key.value: value.value
                for key, value in pairs
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
                and isinstance(value, ast.Constant) and isinstance(value.value, str)
            }  # fmt: skip
    return {}


def _texts(node: ast.expr, scope: Mapping[str, object]) -> Iterator[str]:
    """The texts an expression stands for, as far as names are bound to literals."""
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.Starred(value=inner) | ast.Subscript(value=inner):
            yield from _texts(inner, scope)
        case ast.Name(id=name):
            found = scope.get(name)
            yield from (found,) if isinstance(found, str) else strings(found)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            for item in items:
                yield from _texts(item, scope)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield from (*_texts(left, scope), *_texts(right, scope))
        case ast.JoinedStr():
            parsed = parse_syntax(ast.unparse(node))
            pieces = [part.value for part in ast.walk(parsed) if isinstance(part, ast.Constant)]
            yield "".join(str(piece) for piece in pieces)
        case ast.IfExp(body=body):
            yield from _texts(body, scope)
        case _:
            return
