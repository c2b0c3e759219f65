"""Every change of every job, written down by the database itself, with the process that made it. One property: nothing
that changes a job's state, fence or attempt escapes it, and no process can write in another's name.

    python -m tests.chaos.witness celery|swefactory ARGUMENTS…     that command, with its connections named

Triggers write the rows; each connection says whose it is when it is opened. The command is what an administrator would
start, and knows nothing of it.
"""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, event, text

from db.engine import make_engine, reading
from db.enums import JobState
from swefactory.pipeline import owner_name

_TABLE = """CREATE TABLE witness (
    seq {key}, job_id INTEGER, old_state TEXT, state TEXT, old_fence INTEGER, fence INTEGER, old_attempt INTEGER,
    attempt INTEGER, max_attempts INTEGER, owner TEXT, who TEXT)"""
_INTO = """INSERT INTO witness
    (job_id, old_state, state, old_fence, fence, old_attempt, attempt, max_attempts, owner, who)"""
_NEW = "(NEW.id, '', NEW.state, 0, NEW.fence, 0, NEW.attempt, NEW.max_attempts, '', {who})"
_CHANGED = """(NEW.id, OLD.state, NEW.state, OLD.fence, NEW.fence, OLD.attempt, NEW.attempt, NEW.max_attempts,
    OLD.lease_owner, {who})"""
_GONE = "(OLD.id, OLD.state, 'gone', OLD.fence, 0, OLD.attempt, 0, 0, OLD.lease_owner, {who})"
# A heartbeat changes nothing of these, and is written down only where it is not the holder's.
_MATTERS = """OLD.state <> NEW.state OR OLD.fence <> NEW.fence OR OLD.attempt <> NEW.attempt
    OR (OLD.state = 'doing' AND OLD.lease_until <> NEW.lease_until AND OLD.lease_owner <> {who})"""
_SQLITE = (
    f"CREATE TRIGGER w_new AFTER INSERT ON job BEGIN {_INTO} VALUES {_NEW}; END",
    f"CREATE TRIGGER w_changed AFTER UPDATE ON job WHEN {_MATTERS} BEGIN {_INTO} VALUES {_CHANGED}; END",
    f"CREATE TRIGGER w_gone AFTER DELETE ON job BEGIN {_INTO} VALUES {_GONE}; END",
)
_POSTGRES = (
    f"""CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'INSERT' THEN {_INTO} VALUES {_NEW};
        ELSIF TG_OP = 'DELETE' THEN {_INTO} VALUES {_GONE};
        ELSIF {_MATTERS} THEN {_INTO} VALUES {_CHANGED};
        END IF; RETURN NULL; END $$""",
    "CREATE TRIGGER w AFTER INSERT OR UPDATE OR DELETE ON job FOR EACH ROW EXECUTE FUNCTION witness()",
)
_ENDED = {JobState.SUCCEEDED, JobState.REJECTED, JobState.DEAD, JobState.CANCELLED}
_WAITING = {JobState.TODO, JobState.QUEUED, JobState.FAILED}


@dataclass(frozen=True)
class Change:
    job_id: int
    old_state: str
    state: str
    old_fence: int
    fence: int
    old_attempt: int
    attempt: int
    max_attempts: int
    owner: str  # who held the job before
    who: str  # who made the change


def name_connections() -> None:
    """From now on each connection of this process, and of those it forks, is opened in its name."""
    event.listen(Engine, "connect", _name)


def _name(connection: Any, _: object) -> None:
    if hasattr(connection, "create_function"):
        connection.create_function("who", 0, owner_name)
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('witness.who', %s, false)", (owner_name(),))
    connection.commit()


@contextlib.contextmanager
def named_connections() -> Iterator[None]:
    name_connections()
    try:
        yield
    finally:
        event.remove(Engine, "connect", _name)


def install(url: str) -> None:
    """Makes the table and the triggers, in a catalog at the present schema."""
    engine = make_engine(url)
    is_sqlite = engine.dialect.name == "sqlite"
    key = "INTEGER PRIMARY KEY AUTOINCREMENT" if is_sqlite else "BIGSERIAL PRIMARY KEY"
    who = "who()" if is_sqlite else "current_setting('witness.who')"
    with engine.begin() as connection:
        for statement in (_TABLE, *(_SQLITE if is_sqlite else _POSTGRES)):
            connection.exec_driver_sql(statement.replace("{key}", key).replace("{who}", who))
    engine.dispose()


def seen(engine: Engine) -> list[Change]:
    """All changes; those of one job in their order, because its row was locked for each."""
    with reading(engine).connect() as connection:
        rows = connection.execute(text("SELECT * FROM witness ORDER BY seq")).mappings()
        return [Change(**{name: row[name] for name in row if name != "seq"}) for row in rows]


def broken(changes: list[Change]) -> list[str]:
    """The invariants that these changes break, each with the change that does."""
    found = []
    for change in changes:
        for rule, holds in _RULES.items():
            if not holds(change):
                found.append(f"{rule}: {change}")
    return found


def _is_claim(change: Change) -> bool:
    return change.state == JobState.DOING and change.fence == change.old_fence + 1


def _is_reopening(change: Change) -> bool:
    return change.state == JobState.TODO and change.old_state in {*_ENDED, JobState.FAILED} and change.attempt == 0


_RULES = {
    "no job is lost": lambda c: c.state != "gone",
    "fences only grow, by one with each claim": lambda c: c.fence == c.old_fence or _is_claim(c),
    "attempts stay within their maximum": lambda c: 0 <= c.attempt <= c.max_attempts,
    "an attempt begins with a claim": lambda c: c.attempt <= c.old_attempt or _is_claim(c),
    "what has ended stays so until it is opened again": lambda c: c.old_state not in _ENDED or _is_reopening(c),
    "a verdict comes from the work on a job": lambda c: (
        c.state not in (JobState.SUCCEEDED, JobState.REJECTED) or c.old_state == JobState.DOING
    ),
    # A new claim and a burial are made by others; everything else that happens to a job in hand is its holder's doing.
    "only the holder of a job renews, ends or gives it back": lambda c: (
        c.old_state != JobState.DOING or c.who == c.owner or _is_claim(c) or c.state in (JobState.DEAD, JobState.QUEUED)
    ),
}


if __name__ in ("__main__", "__mp_main__"):  # the second is a process that `run -j` spawned
    name_connections()

if __name__ == "__main__":
    program = sys.argv.pop(1)
    if program == "celery":
        from celery.__main__ import main
    else:
        from swefactory.cli.main import main
    sys.argv[0] = program
    sys.exit(main())
