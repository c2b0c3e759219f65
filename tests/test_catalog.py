"""The catalog's engine: one transaction a session, both databases alike, and a clear sentence for each bad catalog."""

import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from db.engine import CatalogError, check, make_engine, session, upgrade
from db.enums import Outcome, RunState, RunStatus, SourceKind
from db.models import Crawl, Repository, TestOutcome, TestRun
from tests.catalogs import BOTH, catalog_url, upgraded


@pytest.fixture(params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = upgraded(catalog_url(request.param, request))
    yield made
    made.dispose()


def repository(name: str = "pallets/click") -> Repository:
    return Repository(name=name)


def n_repositories(engine: Engine) -> int:
    with session(engine, writing=False) as db:
        return len(db.exec(select(Repository)).all())


def test_a_session_commits_at_its_end_and_its_objects_stay_readable(engine: Engine) -> None:
    with session(engine) as db:
        row = repository()
        db.add(row)
    assert (row.id, row.name) == (1, "pallets/click")
    assert n_repositories(engine) == 1


def test_an_error_rolls_the_whole_session_back(engine: Engine) -> None:
    def interrupted() -> None:
        with session(engine) as db:
            db.add(repository())
            db.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert n_repositories(engine) == 0


def test_a_broken_rule_of_the_schema_keeps_its_own_error(engine: Engine) -> None:
    with pytest.raises(IntegrityError), session(engine) as db:
        db.add_all([repository(), repository()])


def test_a_foreign_key_is_enforced(engine: Engine) -> None:
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text("INSERT INTO environment_build (environment_id, sandbox, locator, size_bytes,"
                                " duration_s, built_at) VALUES (7, 's', 'l', 0, 0, '2001-01-01')"))  # fmt: skip


def test_times_come_back_aware_and_in_utc(engine: Engine) -> None:
    with session(engine) as db:
        db.add(repository())
    with session(engine, writing=False) as db:
        created = db.exec(select(Repository)).one().created_at
    assert created.utcoffset() is not None
    assert str(created.tzinfo) == "UTC"


def test_an_enum_is_stored_by_its_value(engine: Engine) -> None:
    with session(engine) as db:
        row = repository()
        db.add(row)
        db.flush()
        db.add(Crawl(repository_id=row.id or 0, source=SourceKind.GITHUB))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT source FROM crawl")).scalar_one() == "github"


def test_a_reading_session_cannot_write(engine: Engine) -> None:
    with pytest.raises(Exception, match="read"), session(engine, writing=False) as db:
        db.add(repository())
    assert n_repositories(engine) == 0


def test_a_reader_does_not_wait_for_a_writer(engine: Engine) -> None:
    with session(engine) as db:
        db.add(repository())
        db.flush()
        assert n_repositories(engine) == 0


def test_two_writers_take_turns_instead_of_failing(engine: Engine) -> None:
    def read_then_write(n: int) -> None:
        for i in range(10):
            with session(engine) as db:
                _ = db.exec(select(Repository)).all()  # a reader that becomes a writer
                db.add(repository(f"owner/{n}-{i}"))

    threads = [threading.Thread(target=read_then_write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert n_repositories(engine) == 40


def test_an_sqlite_catalog_keeps_a_write_ahead_log_and_syncs_fully(tmp_path: Path) -> None:
    engine = upgraded(f"sqlite:///{tmp_path / 'c.db'}")
    with engine.connect() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                 for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")]  # fmt: skip
    engine.dispose()
    assert found == ["wal", 2, 1, 30_000]


def test_upgrade_makes_the_folder_of_the_catalog(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "catalog.db"
    engine = make_engine(f"sqlite:///{path}")
    assert upgrade(engine)[0] is None
    check(engine)
    engine.dispose()
    assert path.is_file()


def sentence_of(url: str) -> str:
    engine = make_engine(url)
    try:
        with pytest.raises(CatalogError) as caught:
            check(engine)
    finally:
        engine.dispose()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_catalog_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    said = sentence_of(f"sqlite:///{path}")
    assert str(path) in said
    assert "swefactory db upgrade" in said
    assert not path.exists()


def test_an_empty_database_is_no_catalog_yet(request: pytest.FixtureRequest) -> None:
    assert "no catalog yet" in sentence_of(catalog_url("postgresql", request))


def test_an_older_and_a_newer_schema_say_different_things(engine: Engine) -> None:
    def at(revision: str) -> str:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": revision})
        with pytest.raises(CatalogError) as caught:
            check(engine)
        return str(caught.value)

    assert "upgrade swefactory" in at("9999")
    with pytest.raises(CatalogError, match="newer"):
        upgrade(engine)


def test_a_read_only_catalog_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    upgraded(f"sqlite:///{path}").dispose()
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    assert "read-only" in sentence_of(url)
    engine = make_engine(url)
    check(engine, writing=False)  # looking is allowed
    engine.dispose()


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_text("a letter\n" * 200)
    assert "not a database" in sentence_of(f"sqlite:///{path}")
    with pytest.raises(CatalogError, match="not a database"):
        upgrade(make_engine(f"sqlite:///{path}"))
    assert path.read_text() == "a letter\n" * 200


def test_a_database_of_something_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE job (mine TEXT)")
    other.close()
    engine = make_engine(f"sqlite:///{path}")
    with pytest.raises(CatalogError, match="something else"):
        upgrade(engine)
    with engine.connect() as connection:
        tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
    engine.dispose()
    assert tables == ["job"]


def test_a_server_that_does_not_answer_is_one_sentence_without_the_password() -> None:
    said = sentence_of("postgresql://me:hunter2@127.0.0.1:9/catalog")
    assert "127.0.0.1:9/catalog" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("url", ["mysql://h/d", "not a url", ""])
def test_a_url_of_no_catalog_is_refused(url: str) -> None:
    with pytest.raises(CatalogError, match="sqlite:/// or postgresql://"):
        make_engine(url)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogError, match="SWEFACTORY_HOME"):
        upgrade(make_engine(f"sqlite:///{tmp_path / 'file' / 'sub' / 'catalog.db'}"))


def test_a_test_id_longer_than_an_index_entry_is_kept_whole(engine: Engine) -> None:
    test_id = f"tests/test_x.py::test[{random.Random(1).randbytes(6000).hex()}]"  # does not compress
    with session(engine) as db:
        run = TestRun(state=RunState.BEFORE, number=1, status=RunStatus.COMPLETED)
        db.add(run)
        db.flush()
        db.add(TestOutcome(test_run_id=run.id or 0, test_id=test_id, test_digest="sha256:x", outcome=Outcome.PASSED))
    with session(engine, writing=False) as db:
        assert db.exec(select(TestOutcome.test_id)).one() == test_id
