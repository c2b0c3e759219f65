"""Which task instances an option means: ids, patterns of ids, or the rows of a named query.

One property: what names nothing is refused, so that no campaign is smaller than it was meant to be.
"""

import fnmatch
from collections.abc import Iterable

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from db import queries
from db.enums import InstanceStatus
from db.models import TaskInstance
from swefactory.errors import UsageError

INSTANCES_HELP = "An instance id, a pattern such as 'pallets__*', or the name of a query with a column instance_id"
_COLUMN = "instance_id"


def chosen_instances(engine: Engine, db: Session, wanted: Iterable[str]) -> list[str]:
    """Instance ids, sorted; empty when nothing is wanted. Patterns and queries mean validated instances, an id is taken
    as it is. Raises UsageError when one of `wanted` names none."""
    validated = select(TaskInstance.instance_id).where(col(TaskInstance.status) == InstanceStatus.VALIDATED)
    known = frozenset(db.exec(validated))
    return sorted({found for each in wanted for found in _meant(engine, known, each)})


def _meant(engine: Engine, validated: frozenset[str], wanted: str) -> Iterable[str]:
    if wanted in {info.name for info in queries.names()}:
        found = _of_query(engine, wanted) & validated
    elif any(sign in wanted for sign in "*?["):
        found = frozenset(fnmatch.filter(validated, wanted))
    else:
        return (wanted,)
    if not found:
        raise UsageError(
            f"{wanted!r} names none of the {len(validated)} validated task instances; see `query instances`"
        )
    return found


def _of_query(engine: Engine, name: str) -> frozenset[str]:
    columns, rows = queries.run(engine, name)
    if _COLUMN not in columns:
        raise UsageError(f"the query {name} has no column {_COLUMN}; its columns are {', '.join(columns)}")
    place = columns.index(_COLUMN)
    return frozenset(str(row[place]) for row in rows)
