"""Catalogs compared row by row. One property: two that were filled in another order compare as equal.

Ids give way to natural keys; times and what depends on chance are left aside.
"""

import re
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select
from sqlmodel import SQLModel

from db.enums import RunStatus

# What is measured, hashes of logs that hold such, a job's place among those that waited with it, the folder of a home,
# and how many files a sandbox shows, those of this machine's system among them. `as_of` of a recipe that instances
# share is that of the first of them to be built, which is chance.
_ASIDE = {"cpu_share", "duration_s", "size_bytes", "log_digest", "locator", "as_of", "started_at", "finished_at",
          "label", "turn", "model_s", "tools_s", "overhead_s", "n_files"}  # fmt: skip
_KEYS = {  # how a row is named in place of its id
    "repository": ("name",),
    "crawl": ("repository_id", "source"),
    "pull_request": ("repository_id", "number"),
    "issue": ("repository_id", "number"),
    "environment": ("digest",),
    "task_instance": ("instance_id",),
    "validation": ("task_instance_id", "number"),
    "agent_config": ("digest",),
    "campaign": ("name",),
    "rollout": ("task_instance_id", "agent_config_id", "replica"),
    "test_run": ("validation_id", "rollout_id", "state", "number"),
}
_TRIES = {
    "job": ("attempt", "max_attempts", "fence", "lease_owner", "message"),
    "crawl": ("n_rest", "n_rest_free", "n_graphql", "n_graphql_points"),
    # Measured by who builds; where that one died before it could say so, `images list` measures again.
    "environment_build": ("unique_bytes", "shared_bytes"),
}
_SUBJECTS = {
    "crawl": "crawl", "candidate": "pull_request", "environment": "task_instance", "validation": "task_instance",
    "rollout": "rollout", "grade": "rollout", "score": "task_instance",
}  # fmt: skip


def contents(engine: Engine, *, after_deaths: bool = False) -> dict[str, list[str]]:
    """Each table's rows as sorted texts, with natural keys in place of ids. `after_deaths` leaves aside how often, by
    whom and at what cost something was tried, and the runs that were killed and so are no evidence."""
    with engine.connect() as connection:
        rows = {
            name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for name, table in SQLModel.metadata.tables.items()
        }
    del rows["artifact"], rows["export"]  # named by hashes of logs; not made here
    if after_deaths:
        rows |= {"rollout_attempt": [], "api_quota": [], "api_answer": []}
        for name, tries in _TRIES.items():
            rows[name] = [{k: v for k, v in row.items() if k not in tries} for row in rows[name]]
        rows["test_run"] = _evidence(rows["test_run"])
        _leave_chance_aside(rows)
    return {name: sorted(repr(comparable(rows, name, row)) for row in found) for name, found in rows.items()}


def differences(found: dict[str, list[str]], wanted: dict[str, list[str]]) -> list[str]:
    """The rows that only one of two `contents` has, of every table at once: what made them took an hour."""
    told = []
    for table, rows in wanted.items():
        more, missing = Counter(found[table]) - Counter(rows), Counter(rows) - Counter(found[table])
        told += [f"{table}, not wanted: {row}" for row in more.elements()]
        told += [f"{table}, missing: {row}" for row in missing.elements()]
    return told


def _evidence(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without void runs; those that are left are numbered anew for each owner and state."""
    found, counts = [], Counter[object]()
    for run in sorted(runs, key=lambda run: run["number"]):
        if run["status"] is not RunStatus.VOID:
            owner = (run["validation_id"], run["rollout_id"], run["state"])
            counts[owner] += 1
            found.append({**run, "number": counts[owner]})
    return found


def _leave_chance_aside(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Of a validation in which tests were unstable, everything but its verdict: in which runs they fail is chance, and
    so is how many of them the instance's sentence counts."""
    unstable = {row["id"] for row in rows["validation"] if row["certificate"].get("unstable")}
    runs = {row["id"] for row in rows["test_run"] if row["validation_id"] in unstable}
    rows["test_outcome"] = [row for row in rows["test_outcome"] if row["test_run_id"] not in runs]
    for name in ("test_run", "test_verdict"):
        rows[name] = [row for row in rows[name] if row["validation_id"] not in unstable]
    instances = {row["task_instance_id"] for row in rows["validation"] if row["id"] in unstable}
    rows["task_instance"] = [
        {**row, "reject_detail": ""} if row["id"] in instances else row for row in rows["task_instance"]
    ]
    for row in rows["validation"]:
        kept = {} if row["id"] in unstable else row["certificate"]
        row["certificate"] = {k: v for k, v in kept.items() if k != "n_void"}
        row["n_flaky"] = bool(row["n_flaky"])


def comparable(rows: dict[str, list[dict[str, Any]]], table: str, row: dict[str, Any]) -> dict[str, Any]:
    kept = without(row)
    kept.pop("id", None)
    if table == "job":
        kept["subject_id"] = key_of(rows, _SUBJECTS[row["stage"].value], row["subject_id"])
    for key in SQLModel.metadata.tables[table].foreign_keys:
        column, target = key.parent.name, key.column.table.name
        kept[column] = key_of(rows, target, row[column])
    return kept


def without(value: Any) -> Any:
    """The value without what is left aside, at any depth; in texts, how long pytest took and the log that says so."""
    if type(value) is str:
        return re.sub(r"(\bin \d+\.\d+s$)|(?<=the whole log: )sha256:[0-9a-f]{64}", "…", value, flags=re.MULTILINE)
    if not isinstance(value, dict):
        return value
    return {k: without(v) for k, v in value.items() if k not in _ASIDE and not isinstance(v, datetime)}


def key_of(rows: dict[str, list[dict[str, Any]]], table: str, row_id: int | None) -> object:
    """The natural key of a row, with its own foreign keys followed."""
    if row_id is None:
        return None
    (row,) = (row for row in rows[table] if row["id"] == row_id)
    whole = comparable(rows, table, row)
    return tuple(str(whole[column]) for column in _KEYS[table])


_MINED = ("repository", "pull_request", "issue", "pull_request_issue", "task_instance", "crawl", "job")
_OF_THE_WAY = {  # how often something was tried and asked, and when
    "repository": ("created_at", "facts_at"),
    "crawl": ("n_rest", "n_rest_free", "n_graphql", "n_graphql_points", "crawled_at", "created_at"),
    "job": ("attempt", "fence", "turn", "message", "lease_owner", "lease_until", "not_before", "created_at",
            "started_at", "finished_at"),
}  # fmt: skip


def mined(engine: Engine, tables: Collection[str] = _MINED) -> dict[str, list[str]]:
    """What mining leaves, as `contents`, with what sources told of times; the way it came to be is left aside."""
    with engine.connect() as connection:
        rows = {
            name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for name, table in SQLModel.metadata.tables.items()
        }
    return {name: sorted(repr(_told(rows, name, row)) for row in rows[name]) for name in tables}


def _told(rows: dict[str, list[dict[str, Any]]], table: str, row: dict[str, Any]) -> dict[str, Any]:
    keys = {name: value for name, value in comparable(rows, table, row).items() if name in row}
    whole = {**row, **keys}
    return {name: whole[name] for name in whole if name != "id" and name not in _OF_THE_WAY.get(table, ())}
