"""Named queries: SQL worth keeping, in queries.sql. One property: a query cannot change the catalog.

The database itself refuses to write in the transaction a query runs in, so that a slip in the SQL cannot do harm.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from sqlalchemy import Engine, text

from db.engine import CatalogError, reading, told

_HEAD = re.compile(r"^-- name: (\w+)\n((?:-- .*\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class QueryInfo:
    """A query's name, what it answers, and the parameters it takes; one not given means "all"."""

    name: str
    description: str
    parameters: tuple[str, ...] = ()


def names() -> list[QueryInfo]:
    """Every named query, in the file's order."""
    return [info for info, _ in _queries().values()]


def run(
    engine: Engine, name: str, parameters: Mapping[str, object] | None = None
) -> tuple[list[str], list[tuple[object, ...]]]:
    """The columns and rows of a named query. Raises CatalogError for a name or a parameter that is not there."""
    known = _queries()
    if name not in known:
        raise CatalogError(f"there is no query {name!r}; there are: {', '.join(known)}")
    info, sql = known[name]
    given = dict(parameters or {})
    if strange := sorted(given.keys() - set(info.parameters)):
        raise CatalogError(f"the query {name} takes no {', '.join(strange)}; it takes: {', '.join(info.parameters)}")
    values = {parameter: given.get(parameter) for parameter in info.parameters}
    with told(engine), reading(engine).connect() as connection:
        result = connection.execute(text(sql), values)
        return list(result.keys()), [tuple(row) for row in result]


def sql_of(name: str) -> str:
    """A named query's text, to be part of a larger one; its parameters are still in it."""
    return _queries()[name][1]


def _queries() -> dict[str, tuple[QueryInfo, str]]:
    source = (files("db") / "queries.sql").read_text(encoding="utf-8")
    heads = list(_HEAD.finditer(source))
    ends = [head.start() for head in heads[1:]] + [len(source)]
    found = {}
    for head, end in zip(heads, ends, strict=True):
        sql = source[head.end() : end].strip().removesuffix(";")
        description = " ".join(line.removeprefix("-- ") for line in head[2].splitlines())
        found[head[1]] = (QueryInfo(head[1], description, tuple(text(sql).compile().params)), sql)
    return found
