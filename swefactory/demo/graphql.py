"""Answers GraphQL queries over plain dicts: enough of the language for a client of GitHub's API.

    value of a field: a dict (object), a list, a scalar, or a function of the field's arguments that gives one

Knows aliases, variables with defaults, fragments (named and inline) on types, @include and @skip; no mutations, no
schema: a field that is not in the data is an error, as it is at GitHub. An object of several possible types says its
own in `__typename`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r'[\s,]+|#[^\n]*|(?P<name>[_A-Za-z]\w*)|(?P<number>-?\d+(?:\.\d+)?)|"(?P<text>(?:[^"\\]|\\.)*)"'
    r"|(?P<sign>\.\.\.|[{}()\[\]:$!=@])"
)
_CONSTANTS = {"true": True, "false": False, "null": None}


class QueryError(ValueError):
    """The query cannot be read or asks for what is not there."""


@dataclass(frozen=True)
class _Variable:
    name: str


@dataclass(frozen=True)
class _Field:
    """One selected field; `spread` names a fragment instead, `name` "" with selections is a fragment's body, for
    objects of the type `on`."""

    name: str
    alias: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    selections: Sequence["_Field"] = ()
    spread: str = ""
    on: str = ""
    conditions: Sequence[tuple[str, Any]] = ()


def answer(query: str, variables: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """What `query` selects from `data`. Raises QueryError."""
    parser = _Parser(query)
    selections, defaults, fragments = parser.document()
    return _Evaluation({**defaults, **variables}, fragments).select(selections, data)


class _Parser:
    """A recursive descent over the tokens of one document."""

    def __init__(self, query: str) -> None:
        self._tokens = [*_tokens(query), ("end", "")]
        self._at = 0

    def document(self) -> tuple[Sequence[_Field], dict[str, Any], dict[str, _Field]]:
        """The (only) operation's selections, its variables' defaults, and the fragments."""
        selections: Sequence[_Field] = ()
        defaults: dict[str, Any] = {}
        fragments: dict[str, _Field] = {}
        while self._peek() != ("end", ""):
            if self._take_if("name", "fragment"):
                name = self._take("name")
                self._take("name", "on")
                on = self._take("name")
                fragments[name] = _Field("", on=on, selections=self._selections())
                continue
            if self._take_if("name", "query") and self._peek()[0] == "name":
                self._take("name")
            if self._take_if("sign", "("):
                defaults = self._variable_defaults()
            self._directives()
            selections = self._selections()
        return selections, defaults, fragments

    def _variable_defaults(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._take_if("sign", ")"):
            self._take("sign", "$")
            name = self._take("name")
            self._take("sign", ":")
            while self._peek()[1] in ("[", "]", "!") or self._peek()[0] == "name":
                self._at += 1
            found[name] = self._value() if self._take_if("sign", "=") else None
        return found

    def _selections(self) -> list[_Field]:
        self._take("sign", "{")
        found = []
        while not self._take_if("sign", "}"):
            found.append(self._fragment() if self._take_if("sign", "...") else self._field())
        return found

    def _fragment(self) -> _Field:
        if self._peek()[0] == "name" and self._peek()[1] != "on":
            return _Field("", spread=self._take("name"), conditions=self._directives())
        on = self._take("name") if self._take_if("name", "on") else ""
        return _Field("", on=on, conditions=self._directives(), selections=self._selections())

    def _field(self) -> _Field:
        name = alias = self._take("name")
        if self._take_if("sign", ":"):
            name = self._take("name")
        arguments = self._arguments() if self._take_if("sign", "(") else {}
        conditions = self._directives()
        selections = self._selections() if self._peek() == ("sign", "{") else ()
        return _Field(name, alias, arguments, selections, conditions=conditions)

    def _arguments(self, end: str = ")") -> dict[str, Any]:
        found = {}
        while not self._take_if("sign", end):
            name = self._take("name")
            self._take("sign", ":")
            found[name] = self._value()
        return found

    def _directives(self) -> list[tuple[str, Any]]:
        found = []
        while self._take_if("sign", "@"):
            name = self._take("name")
            arguments = self._arguments() if self._take_if("sign", "(") else {}
            found.append((name, arguments.get("if")))
        return found

    def _value(self) -> Any:  # noqa: ANN401 - GraphQL's values are of any type
        kind, text = self._peek()
        self._at += 1
        match kind, text:
            case "sign", "$":
                return _Variable(self._take("name"))
            case "sign", "[":
                items = []
                while not self._take_if("sign", "]"):
                    items.append(self._value())
                return items
            case "sign", "{":
                return self._arguments("}")
            case "name", _:
                return _CONSTANTS.get(text, text)
            case "number", _:
                return float(text) if "." in text else int(text)
            case "text", _:
                return text
        raise QueryError(f"a value was expected at {text!r}")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at]

    def _take(self, kind: str, text: str | None = None) -> str:
        found = self._tokens[self._at]
        if found[0] != kind or text not in (None, found[1]):
            raise QueryError(f"expected {text or kind}, found {found[1]!r}")
        self._at += 1
        return found[1]

    def _take_if(self, kind: str, text: str) -> bool:
        if self._peek() != (kind, text):
            return False
        self._at += 1
        return True


class _Evaluation:
    """Selects fields from data, with one query's variables and fragments."""

    def __init__(self, variables: Mapping[str, Any], fragments: Mapping[str, _Field]) -> None:
        self._variables = variables
        self._fragments = fragments

    def select(self, selections: Sequence[_Field], data: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for wanted in self._flat(selections, str(data.get("__typename", ""))):
            if wanted.name not in data:
                raise QueryError(f"Field '{wanted.name}' doesn't exist")
            value = data[wanted.name]
            if isinstance(value, Callable):  # type: ignore[arg-type]  # mypy takes Callable for a type form
                value = value(self._resolved(wanted.arguments))
            found[wanted.alias] = self._part(wanted, value)
        return found

    def _part(self, wanted: _Field, value: Any) -> Any:  # noqa: ANN401 - JSON's values are of any type
        if isinstance(value, Mapping):
            return self.select(wanted.selections, value)
        if isinstance(value, list):
            return [self._part(wanted, item) for item in value]
        return value

    def _flat(self, selections: Sequence[_Field], kind: str) -> Iterator[_Field]:
        """The fields for an object of type `kind`; "" where it can be of one type only."""
        for wanted in selections:
            if not all(bool(self._resolved(value)) is (name == "include") for name, value in wanted.conditions):
                continue
            if wanted.spread:
                yield from self._flat([self._fragments.get(wanted.spread) or _missing(wanted.spread)], kind)
            elif wanted.name:
                yield wanted
            elif wanted.on in ("", kind) or not kind:
                yield from self._flat(wanted.selections, kind)

    def _resolved(self, value: Any) -> Any:  # noqa: ANN401 - GraphQL's values are of any type
        match value:
            case _Variable():
                return self._variables.get(value.name)
            case dict():
                return {name: self._resolved(item) for name, item in value.items()}
            case list():
                return [self._resolved(item) for item in value]
        return value


def _missing(fragment: str) -> _Field:
    raise QueryError(f"there is no fragment {fragment!r}")


def _tokens(query: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(query):
        match = _TOKEN.match(query, position)
        if match is None:
            raise QueryError(f"cannot read the query at {query[position : position + 20]!r}")
        position = match.end()
        if match.lastgroup:
            yield match.lastgroup, match[match.lastgroup]
