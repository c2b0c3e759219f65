"""Everything that can die does, at random, while real workers do real jobs; the catalog in the end is that of a run in
which nothing happened.

On SQLite: `swefactory run` processes. On PostgreSQL and Redis, servers of the test's own: Celery's workers and their
pools. Workers and their git processes are killed, workers are stopped for longer than a lease, the disk of catalog
(SQLite), mirrors and artifacts fills up, clocks jump, Redis is killed and flushed, PostgreSQL is restarted at once.

Crawls and candidates are the real ones. A minute each by default; `make chaos` a quarter of an hour each, with
environments and validations in namespace sandboxes, too. SWEFACTORY_CHAOS_S sets the seconds, SWEFACTORY_CHAOS_SEED the
schedule.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db import jobs, queries
from db.engine import CatalogError, session, told
from db.enums import JobState, StageName
from swefactory.config import Settings
from swefactory.demo.history import build_history
from swefactory.pipeline import run_embedded
from swefactory.sandboxes.strays import strays
from tests.catalog_rows import contents, differences
from tests.catalogs import BOTH, upgraded
from tests.chaos import witness
from tests.chaos.disorder import Disorder, schedule
from tests.chaos.observer import Observer, percentile
from tests.chaos.servers import clock_library, own_postgres, own_redis, small_disk
from tests.chaos.workers import BEAT, EMBEDDED, ROOT, SPAWNING, Workers, celery
from tests.chaos.workload import MAX_ATTEMPTS, Addition, additions, tally
from tests.faulty_github import Fault, FaultyGitHub, faulty_github
from tests.test_crash_points import left_behind

_IS_FULL = os.environ.get("SWEFACTORY_CHAOS") == "full"
_CHAOS_S = float(os.environ.get("SWEFACTORY_CHAOS_S", "900" if _IS_FULL else "40"))
_SEED = int(os.environ.get("SWEFACTORY_CHAOS_SEED") or (time.time_ns() % 100_000 if _IS_FULL else 7))
# A whole process takes longer to come back than one of a pool; in full, an environment is to be built in between.
_PAUSES_S = {"sqlite": 3.0, "postgresql": 2.5} if _IS_FULL else {"sqlite": 1.6, "postgresql": 0.8}
_N_HISTORIES = max(3, int(_CHAOS_S / (60 if _IS_FULL else 8)))  # in full, each has three candidates to validate
_N_ABSENT = int(_CHAOS_S)
_LEASE_S = 3.0
_RECOVERY_S = _LEASE_S + 10
_LEAST_NOTED = 5
_LONGEST = 5  # times as long it may take where hardly a worker comes to do anything
_TOKEN = "token-of-chaos"
_HELD = () if _IS_FULL else (StageName.ENVIRONMENT,)
_DRAIN_S = 900
_DISK_BYTES = (1024 if _IS_FULL else 96) * 2**20


@dataclass(frozen=True)
class Work:
    """What is to be done, whom its crawls ask, and what an undisturbed run made of it."""

    additions: list[Addition]
    github: FaultyGitHub
    calm: dict[str, list[str]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    folder = tmp_path_factory.mktemp("work")
    history = build_history(folder / "demo")
    todo = additions(folder / "histories", history.name, _N_HISTORIES, _N_ABSENT)
    if _IS_FULL:
        todo.insert(0, tally(folder / "tally"))
    with faulty_github(history, token=_TOKEN) as github:
        github.page_size = 1
        made = settings_of(folder / "home", f"sqlite:///{folder / 'catalog.db'}", github.url)
        engine = upgraded(made.catalog_url)
        hold(engine)
        for addition in todo:
            addition.add_to(engine)
        run_embedded(made, engine)
        found = contents(engine, after_deaths=True)
        engine.dispose()
        github.delay_s = 0.3  # answers take so long that many are killed while they wait
        github.fault(*(Fault("slow", endpoint, times=10**9) for endpoint in ("facts", "issues", "refs", "pack")))
        yield Work(todo, github, found)


def settings_of(home: Path, url: str, github_url: str) -> Settings:
    return Settings(home=home, database_url=url, github_url=github_url, **_SETTINGS)


_SETTINGS: dict[str, Any] = {
    "github_token": _TOKEN, "licenses": "MIT,NOASSERTION", "n_validation_runs": 2, "lease_s": _LEASE_S,
    "github_pause_s": 0.02, "max_attempts": MAX_ATTEMPTS, "sandbox": "namespace", "network_probe": False,
}  # fmt: skip


def environment_of(settings: Settings, broker_url: str, temporary: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEFACTORY_")}
    told = {
        **_SETTINGS, "home": settings.home, "database_url": settings.database_url, "github_url": settings.github_url,
        "dispatch_interval_s": 0.3, "hint_s": 3, "n_hints": 4, "redis_url": broker_url,
    }  # fmt: skip
    ours = {f"SWEFACTORY_{name.upper()}": str(value) for name, value in told.items()}
    return {**kept, **ours, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}


def hold(engine: Engine) -> None:
    with session(engine) as db:
        for stage in _HELD:
            jobs.hold(db, stage, "this run ends before it")


@contextmanager
def disordered(kind: str, folder: Path, github: FaultyGitHub) -> Iterator[tuple[Settings, Engine, Disorder]]:
    """The catalog, witnessed, and workers that have not started yet."""
    disk, temporary = folder / "disk", folder / "tmp"
    temporary.mkdir()
    with ExitStack() as stack:
        is_small = stack.enter_context(small_disk(disk, _DISK_BYTES))
        broker = stack.enter_context(own_redis(folder)) if kind == "postgresql" else None
        database = stack.enter_context(own_postgres()) if kind == "postgresql" else None
        clock = clock_library(database.folder if database else folder)
        url = database.url if database else f"sqlite:///{disk / 'catalog.db'}"
        stack.enter_context(witness.named_connections())
        engine = upgraded(url)
        stack.callback(engine.dispose)
        witness.install(url)
        settings = settings_of(disk / "home", url, github.url)
        environment = environment_of(settings, broker.url if broker else "", temporary)
        workers = Workers(commands(kind), environment, folder / "log", uuid.uuid4().hex)
        stack.callback(workers.end)
        observer = stack.enter_context(Observer(url, _LEASE_S))
        disorder = Disorder(workers, observer, _LEASE_S, disk if is_small else None, clock, broker, database)
        observer.nobody_is_free = disorder.nobody_is_free
        yield settings, engine, disorder


def commands(kind: str) -> tuple[tuple[str, ...], ...]:
    if kind == "sqlite":
        return (EMBEDDED, EMBEDDED, SPAWNING)
    queues = ",".join(["control", *(stage for stage in StageName if stage not in _HELD)])
    return (celery("one", queues), celery("two", queues), BEAT)


def test_the_same_seed_makes_the_same_schedule() -> None:
    one, same, other = (list(islice(schedule(seed, 0.8, has_servers=True), 50)) for seed in (3, 3, 4))
    assert one == same != other


@pytest.mark.parametrize("kind", BOTH)
def test_whatever_dies_the_catalog_ends_as_if_nothing_had(kind: str, tmp_path: Path, work: Work) -> None:
    with disordered(kind, tmp_path, work.github) as (settings, engine, disorder):
        begun = time.monotonic()
        left = disturbed(engine, disorder, work.additions)
        until_done(engine, disorder, left)
        report(kind, engine, disorder, time.monotonic() - begun)
        check(disorder, settings, engine)
        found = contents(engine, after_deaths=True)
    assert differences(found, work.calm) == []


def disturbed(engine: Engine, disorder: Disorder, todo: list[Addition]) -> list[Addition]:
    """Repositories come in all the while, so that there is always something to be killed; those that did not. Time
    counts while somebody has a job in hand: on a busy machine, where workers start slowly, it all takes longer."""
    hold(engine)
    pause_s, has_servers = _PAUSES_S[engine.dialect.name], disorder.broker is not None
    events, waiting = schedule(_SEED, pause_s, has_servers=has_servers), list(todo)
    event = next(events)
    passed, looked, until = 0.0, time.monotonic(), time.monotonic() + _LONGEST * _CHAOS_S
    while passed < _CHAOS_S and looked < until:
        is_idle = not disorder.at_work() and nothing_left(engine)
        n_due = len(todo) - len(waiting) + 1 if is_idle else len(todo) * passed / (0.8 * _CHAOS_S)
        while waiting and len(todo) - len(waiting) < n_due:
            if not answered(lambda: waiting[0].add_to(engine)):
                break  # the catalog is away, or its disk is full
            del waiting[0]
        if is_idle and not waiting:
            break
        while event.at_s <= passed:
            disorder.happen(event)
            event = next(events)
        disorder.heal()
        time.sleep(0.05)
        now = time.monotonic()
        passed, looked = passed + (now - looked) * bool(disorder.at_work()), now
    return waiting


def answered(ask: Callable[[], object]) -> bool:
    with contextlib.suppress(CatalogError):
        ask()
        return True
    return False


def wait(true: Callable[[], bool], timeout_s: float = 300) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, true
        time.sleep(0.1)


def n_left(engine: Engine) -> int:
    return sum(n for (stage, state), n in jobs.counts(engine).items() if state in jobs.OPEN and stage not in _HELD)


def nothing_left(engine: Engine) -> bool:
    with contextlib.suppress(CatalogError):  # it is away
        hurry(engine)
        return n_left(engine) == 0
    return False


def hurry(engine: Engine) -> None:
    """Ends the waiting times after failures, as their time would."""
    with told(engine), engine.begin() as connection:
        later = "state IN ('todo', 'failed') AND not_before > :past"
        past = "2001-01-01 00:00:00.000000"
        connection.execute(text(f"UPDATE job SET not_before = :past WHERE {later}"), {"past": past})


def until_done(engine: Engine, disorder: Disorder, left: list[Addition]) -> None:
    """No more disorder: what is left is done."""
    until = time.monotonic() + _DRAIN_S
    disorder.heal(at_once=True)
    wait(lambda: answered(lambda: n_left(engine)))
    for addition in left:
        addition.add_to(engine)
    while n_left(engine) or disorder.observer.n_orphans:
        disorder.heal()
        hurry(engine)
        assert time.monotonic() < until, (
            queries.run(engine, "waiting"), disorder.happened, disorder.workers.log.read_text()[-3000:],
        )  # fmt: skip
        time.sleep(0.5)


def report(kind: str, engine: Engine, disorder: Disorder, took_s: float) -> None:
    """What happened, also when all is well: `-rP` shows it."""
    observer, log = disorder.observer, disorder.workers.log.read_text()
    changes = witness.seen(engine)
    n_claims = sum(change.fence > change.old_fence for change in changes)
    print(f"{kind}, seed {_SEED}: {disorder.n_kills} kills in {took_s:.0f} s, {dict(disorder.happened)}")
    print(f"{n_claims} claims for {len({c.job_id for c in changes})} jobs, at most {max(c.attempt for c in changes)} "
          f"attempts, {log.count('the lease was lost meanwhile')} results of zombies thrown away")  # fmt: skip
    print(f"{len(observer.recovered_s)} jobs lost their worker and were taken up again: p50 "
          f"{observer.percentile_s(0.5):.1f} s, p95 {observer.percentile_s(0.95):.1f} s; with the time in which nobody "
          f"was free {percentile(observer.in_all_s, 0.95):.1f} s")  # fmt: skip


def check(disorder: Disorder, settings: Settings, engine: Engine) -> None:
    observer = disorder.observer
    assert witness.broken(witness.seen(engine)) == []
    assert disorder.n_kills >= (100 * _CHAOS_S / 900 if _IS_FULL else _CHAOS_S / 8), disorder.happened
    assert observer.n_noted >= _LEAST_NOTED, "hardly anybody was killed with a job in hand: this run proves nothing"
    if _IS_FULL:  # beside other tests a worker may need longer than that to start
        assert observer.percentile_s(0.95) <= _RECOVERY_S, sorted(observer.recovered_s)
    assert not any(state is JobState.DEAD for _, state in jobs.counts(engine)), queries.run(engine, "dead")
    wait(lambda: not disorder.workers.orphans(), timeout_s=30)
    disorder.workers.end()
    wait(lambda: not left_after_a_sweep(disorder, settings, engine), timeout_s=60)  # a killed process is a while dying


def left_after_a_sweep(disorder: Disorder, settings: Settings, engine: Engine) -> list[Path]:
    run_embedded(settings, engine, stages=[StageName.CRAWL])
    left = left_behind(settings.home, Path(disorder.workers.environment["TMPDIR"]))
    left += [Path("/proc") for _ in strays(settings.cache_dir)]
    # multiprocessing makes each Celery worker an empty folder, before any code of ours could say where.
    return [path for path in left if not (path.name.startswith("pymp-") and not list(path.iterdir()))]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SWEFACTORY_") and not name.startswith(("SWEFACTORY_TEST", "SWEFACTORY_REQUIRE")):
            monkeypatch.delenv(name)
