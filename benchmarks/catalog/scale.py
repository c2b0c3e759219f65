"""What does a catalog of a million candidates cost? One property: each question is asked of a small and of a large
catalog in one run, so that growth is a ratio of this machine's own times.

    python benchmarks/catalog/scale.py [--rows 10000 100000 1000000] [--database URL]… [--repeat 200] [--json]

Synthetic pull requests of 500 repositories, one of which has a fifth of them, each with its candidate job: 80 %
rejected, 10 % succeeded, 10 % still to do. The larger catalogs are the smaller one copied within the database. Without
--database: an SQLite file in a temporary folder, and SWEFACTORY_TEST_POSTGRES_URL where that is set. The database of a
URL is emptied!
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, insert, text
from sqlmodel import Session, SQLModel, select

from db import jobs, queries
from db.engine import make_engine, name_of, session, upgrade
from db.enums import JobState, RejectReason, StageName
from db.models import Job, PullRequest, Repository

_REPOSITORIES = 500
_GIANTS_SHARE = 5  # of so many pull requests one is the giant's
_DAY_ZERO = datetime(2020, 1, 1, tzinfo=UTC)
_OWNER = "benchmark:1"
_LEASE_S = 60.0
_COPIED = ("pull_request", "job")


def main() -> int:
    options = _options()
    results = []
    with _urls(options.database) as urls:
        for url in urls:
            engine = make_engine(url)
            _empty(engine)
            upgrade(engine)
            for n_rows in sorted(options.rows):
                _fill(engine, n_rows)
                results.append(_measured(engine, n_rows, options.repeat))
                print(f"{engine.dialect.name}: {n_rows} rows measured", file=sys.stderr)
            engine.dispose()
    print(json.dumps(results, indent=2) if options.json else _table(results))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--database", action="append", default=[])
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


@contextmanager
def _urls(named: Sequence[str]) -> Iterator[Sequence[str]]:
    with tempfile.TemporaryDirectory(prefix="swefactory-scale-") as folder:
        postgres = os.environ.get("SWEFACTORY_TEST_POSTGRES_URL")
        yield named or [f"sqlite:///{Path(folder) / 'catalog.db'}", *([postgres] if postgres else [])]


def _empty(engine: Engine) -> None:
    with engine.begin() as connection:
        SQLModel.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def _fill(engine: Engine, n_rows: int) -> None:
    """Brings the catalog to `n_rows` pull requests and candidate jobs; they only ever grow."""
    with session(engine) as db:
        n = db.connection().execute(text("SELECT count(*) FROM pull_request")).scalar_one()
        if n == 0:
            n = _seed(db, min(n_rows, 10_000))
    while n < n_rows:
        more = min(n, n_rows - n)
        with session(engine) as db:
            for table in _COPIED:
                _copy(db, table, n, more)
        n += more
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE" if engine.dialect.name == "sqlite" else "VACUUM ANALYZE")


def _seed(db: Session, n: int) -> int:
    db.add_all(Repository(name=f"owner{i}/project{i}") for i in range(_REPOSITORIES))
    db.flush()
    ids = list(db.exec(select(Repository.id).order_by(Repository.id)))  # type: ignore[arg-type]
    table = SQLModel.metadata.tables
    pulls = [_row(PullRequest(id=i, repository_id=_repository(ids, i), number=i, **_facts(i))) for i in range(1, n + 1)]
    db.execute(insert(table["pull_request"]), pulls)
    db.execute(insert(table["job"]), [_job(ids, i) for i in range(1, n + 1)])
    return n


def _repository(ids: Sequence[int | None], i: int) -> int:
    found = ids[0] if i % _GIANTS_SHARE == 0 else ids[i % _REPOSITORIES]
    assert found is not None
    return found


def _facts(i: int) -> dict[str, object]:
    at = _DAY_ZERO + timedelta(minutes=i)
    times = {"opened_at": at, "merged_at": at, "updated_at": at}
    return {"title": f"Mend number {i}", "body": "Closes an issue. " * 20, "base_commit": f"{i:040x}", **times}


def _job(ids: Sequence[int | None], i: int) -> dict[str, object]:
    state = {0: JobState.TODO, 1: JobState.SUCCEEDED}.get(i % 10, JobState.REJECTED)
    reason = RejectReason.NO_LINKED_ISSUE if state is JobState.REJECTED else None
    what = {"stage": StageName.CANDIDATE, "subject_id": i, "repository_id": _repository(ids, i)}
    return _row(Job(id=i, **what, state=state, reason=reason, turn=i, not_before=_DAY_ZERO))


def _row(made: SQLModel) -> dict[str, object]:
    return made.model_dump()


def _copy(db: Session, table: str, offset: int, n: int) -> None:
    """The first `n` rows once more, with what identifies them moved by `offset`."""
    moved = {"id", "number", "subject_id"}
    columns = [column.name for column in SQLModel.metadata.tables[table].columns]
    values = [f"{name} + {offset}" if name in moved else name for name in columns]
    db.connection().execute(
        text(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {table} WHERE id <= {n}")  # noqa: S608
    )


def _measured(engine: Engine, n_rows: int, repeat: int) -> dict[str, object]:
    claims = list(_claimed(engine, repeat))
    dispatched = _timed(lambda: jobs.withdraw(engine, [i for i, _ in _dispatch(engine)]), 10)
    return {
        "database": engine.dialect.name,
        "rows": n_rows,
        "claim_ms": _ms(statistics.median(claims)),
        "claim_p95_ms": _ms(statistics.quantiles(claims, n=20)[-1]),
        "dispatch_ms": _ms(dispatched),
        "funnel_ms": _ms(_timed(lambda: queries.run(engine, "funnel"), 5)),
        "status_ms": _ms(_timed(lambda: jobs.counts(engine), 5)),
        "rejections_ms": _ms(_timed(lambda: queries.run(engine, "rejections"), 3)),
        "megabytes": round(_bytes(engine) / 1e6, 1),
    }


def _dispatch(engine: Engine) -> list[tuple[int, StageName]]:
    return jobs.dispatchable(engine, dict.fromkeys(StageName, 20))


def _claimed(engine: Engine, repeat: int) -> Iterator[float]:
    """Each claim is given back, so that the next one finds as much to choose from."""
    for _ in range(repeat):
        begun = time.perf_counter()
        claim = jobs.claim(engine, _OWNER, lease_s=_LEASE_S)
        yield time.perf_counter() - begun
        assert claim is not None, f"nothing to claim in {name_of(engine)}"
        jobs.release(engine, claim)


def _timed(question: Callable[[], object], repeat: int) -> float:
    def once() -> float:
        begun = time.perf_counter()
        question()
        return time.perf_counter() - begun

    return statistics.median([once() for _ in range(repeat)])


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _bytes(engine: Engine) -> int:
    size = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    if engine.dialect.name == "postgresql":
        size = "SELECT pg_database_size(current_database())"
    with engine.connect() as connection:
        n: int = connection.execute(text(size)).scalar_one()
        return n


def _table(results: Iterable[dict[str, object]]) -> str:
    rows = list(results)
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row[column]) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
