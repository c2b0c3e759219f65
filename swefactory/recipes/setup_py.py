"""setup.py read as a syntax tree. One property: the file is never run.

Names bound to literals at the top of the file are followed, as is the arithmetic people do with them:
`EXTRAS["dev"] = EXTRAS["tests"] + ["tox"]`. What depends on the machine (branches, calls) is left out,
element by element.
"""

import ast
from collections.abc import Mapping
from pathlib import Path

from swefactory.recipes.files import read_syntax, read_text


class _Unknown(Exception):
    """The value cannot be known without running the file."""


def setup_keywords(tree: Path) -> Mapping[str, object]:
    """The keyword arguments of the setup() call in setup.py, as far as they are literal."""
    module = read_syntax(tree, "setup.py")
    scope = module_values(module, tree)
    keywords: dict[str, object] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and called(node) == "setup":
            keywords |= _keywords(node, scope, tree)
    return keywords


def module_values(module: ast.Module, tree: Path) -> dict[str, object]:
    """The names a module binds to literal values at its top level."""
    scope: dict[str, object] = {}
    for statement in module.body:
        try:
            _execute(statement, scope, tree)
        except (_Unknown, RecursionError):
            continue
    return scope


def mentions(tree: Path, *names: str) -> bool:
    """Whether setup.py calls or imports any of `names`."""
    found: set[str] = set()
    for node in ast.walk(read_syntax(tree, "setup.py")):
        match node:
            case ast.Call():
                found.add(called(node))
            case ast.ImportFrom(module=module) if module:
                found |= {module.partition(".")[0], *(alias.name for alias in node.names)}
            case ast.Import():
                found |= {alias.name.partition(".")[0] for alias in node.names}
            case _:
                pass
    return not found.isdisjoint(names)


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _keywords(call: ast.Call, scope: Mapping[str, object], tree: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for keyword in call.keywords:
        try:
            value = _value(keyword.value, scope, tree)
        except (_Unknown, RecursionError):
            continue
        if keyword.arg:
            found[keyword.arg] = value
        elif isinstance(value, dict):
            found |= value
    return found


def _execute(statement: ast.stmt, scope: dict[str, object], tree: Path) -> None:
    """Follows one assignment or one list.append; anything else changes nothing."""
    match statement:
        case ast.Assign(targets=targets, value=node):
            value = _value(node, scope, tree)
            for target in targets:
                _bind(target, value, scope, tree)
        case ast.AnnAssign(target=target, value=ast.expr() as node):
            _bind(target, _value(node, scope, tree), scope, tree)
        case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=node):
            scope[name] = _add(scope.get(name), _value(node, scope, tree))
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method), args=[argument])):
            _mutate(scope.get(name), method, _value(argument, scope, tree))
        case ast.Try(body=body):
            for inner in body:
                _execute(inner, scope, tree)
        case ast.With(items=[ast.withitem(context_expr=context, optional_vars=ast.Name(id=name))], body=body):
            scope[name] = _opened(context, scope, tree)
            for inner in body:
                _execute(inner, scope, tree)
        case _:
            return


def _bind(target: ast.expr, value: object, scope: dict[str, object], tree: Path) -> None:
    match target:
        case ast.Name(id=name):
            scope[name] = value
        case ast.Subscript(value=ast.Name(id=name), slice=key):
            holder = scope.get(name)
            if isinstance(holder, dict):
                holder[_value(key, scope, tree)] = value
        case _:
            return


def _mutate(holder: object, method: str, argument: object) -> None:
    if isinstance(holder, list) and method == "append":
        holder.append(argument)
    elif isinstance(holder, list) and method == "extend" and isinstance(argument, list):
        holder.extend(argument)
    elif isinstance(holder, dict) and method == "update" and isinstance(argument, dict):
        holder.update(argument)


def _value(node: ast.expr, scope: Mapping[str, object], tree: Path) -> object:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in scope:
            return scope[name]
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return _items(items, scope, tree)
        case ast.Dict():
            return _mapping(node, scope, tree)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _add(_value(left, scope, tree), _value(right, scope, tree))
        case ast.Subscript(value=holder, slice=key):
            return _subscript(_value(holder, scope, tree), _value(key, scope, tree))
        case ast.JoinedStr(values=parts):
            return "".join(str(_value(part, scope, tree)) for part in parts)
        case ast.FormattedValue(value=inner):
            return _value(inner, scope, tree)
        case ast.Call():
            return _call(node, scope, tree)
        case _:
            raise _Unknown


def _items(items: list[ast.expr], scope: Mapping[str, object], tree: Path) -> list[object]:
    found: list[object] = []
    for item in items:
        try:
            if isinstance(item, ast.Starred):
                inner = _value(item.value, scope, tree)
                found += inner if isinstance(inner, list) else []
            else:
                found.append(_value(item, scope, tree))
        except _Unknown:
            continue
    return found


def _mapping(node: ast.Dict, scope: Mapping[str, object], tree: Path) -> dict[object, object]:
    found: dict[object, object] = {}
    for key, item in zip(node.keys, node.values, strict=True):
        try:
            value = _value(item, scope, tree)
            if key is None:
                found |= value if isinstance(value, dict) else {}
            else:
                name = _value(key, scope, tree)
                found[name if isinstance(name, str) else str(name)] = value
        except _Unknown:
            continue
    return found


def _add(left: object, right: object) -> object:
    """Unknown unless both are texts or both are lists: a list is copied, so that names never share one."""
    if isinstance(left, str) and isinstance(right, str):
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        return [*left, *right]
    raise _Unknown


def _subscript(holder: object, key: object) -> object:
    if isinstance(holder, dict) and isinstance(key, str) and key in holder:
        return holder[key]
    raise _Unknown


def _call(node: ast.Call, scope: Mapping[str, object], tree: Path) -> object:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return _keywords(node, scope, tree)
        case ast.Call(func=ast.Name(id="list" | "tuple" | "set" | "sorted"), args=[inner]):
            return _value(inner, scope, tree)
        case ast.Call(func=ast.Name(id="open"), args=[ast.Constant(value=str()), *_]):
            return _opened(node, scope, tree)
        case ast.Call(func=ast.Attribute(value=holder, attr=method), args=args):
            arguments = [_value(argument, scope, tree) for argument in args]
            return _method(_value(holder, scope, tree), method, arguments)
        case _:
            raise _Unknown


def _opened(node: ast.expr, scope: Mapping[str, object], tree: Path) -> object:
    """The text of `open("name")` stands for the open file: people only ever read it."""
    match node:
        case ast.Call(args=[ast.Constant(value=str() as path), *_]) if called(node) == "open":
            return read_text(tree, path)
        case _:
            raise _Unknown


def _method(holder: object, method: str, arguments: list[object]) -> object:
    match holder, method, arguments:
        case str(), "read" | "read_text", _:
            return holder
        case str(), "splitlines" | "readlines", _:
            return list(holder.splitlines())
        case str(), "strip" | "rstrip" | "lstrip", _:
            return holder.strip()
        case str(), "split", []:
            return list(holder.split())
        case str(), "split", [str() as separator, *_] if separator:
            return list(holder.split(separator))
        case str(), "join", [list() as parts]:
            return holder.join(part for part in parts if isinstance(part, str))
        case list(), "copy", _:
            return list(holder)
        case dict(), "copy", _:
            return dict(holder)
        case dict(), "get", [str() as key, *_]:
            return _subscript(holder, key)
        case _:
            raise _Unknown
