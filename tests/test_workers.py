"""Workers for real: Celery processes on Redis and PostgreSQL, killed and stopped while a job is in hand.

The job is a crawl whose GitHub is a server of ours that answers 404 when the test lets it, so that each test decides
what happens while the job is being done.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from db.engine import session
from swefactory import admin
from tests.catalogs import job_rows, upgraded
from tests.chaos.servers import clock_library
from tests.conftest import free_port
from workers.app import DISPATCH, RUN, configuration, make_app

_LEASE_S, _HINT_S = 2.0, 3.0
_ROOT = Path(__file__).parent.parent


@dataclass
class SlowGitHub:
    """Answers "no such repository" once the gate is open."""

    gate: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@dataclass
class Cluster:
    """What worker processes share."""

    engine: Engine
    github: SlowGitHub
    redis_url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "SWEFACTORY_DATABASE_URL": self.engine.url.render_as_string(hide_password=False),
            "SWEFACTORY_REDIS_URL": self.redis_url,
            "SWEFACTORY_HOME": str(self.home),
            "SWEFACTORY_GITHUB_URL": self.github.url,
            "SWEFACTORY_LEASE_S": str(_LEASE_S),
            "SWEFACTORY_HINT_S": str(_HINT_S),
            "SWEFACTORY_DISPATCH_INTERVAL_S": "0.3",
        }

    @contextmanager
    def celery(self, *arguments: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process of Celery's, with `more` in its environment; its log is shown when a test fails."""
        command, environment = [sys.executable, "-m", "celery", "-A", "workers.app", *arguments], self.environment
        with subprocess.Popen(command, env=environment | more, cwd=_ROOT, start_new_session=True) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()  # its children die with it

    def worker(
        self, name: str, queues: str = "control,crawl", **more: str
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        quiet = ("--without-gossip", "--without-mingle", "--loglevel", "INFO")
        return self.celery("worker", "-n", f"{name}@test", "-c", "2", "-Q", queues, *quiet,
                           "worker.soft_shutdown_timeout=1", **more)  # fmt: skip

    def enqueue(self, name: str = "acme/calc") -> int:
        """Queues a crawl; the id of its repository, which is the job's subject."""
        with session(self.engine) as db:
            admin.add_repository(db, name)
        return max(job_rows(self.engine))

    def job(self, subject_id: int) -> dict[str, object]:
        return job_rows(self.engine)[subject_id]

    def wait_for(self, subject_id: int, state: str, timeout_s: float = 40) -> dict[str, object]:
        wait_until(
            lambda: self.job(subject_id)["state"] == state, lambda: f"{state}: {self.job(subject_id)}", timeout_s
        )
        return self.job(subject_id)


def wait_until(true: Callable[[], bool], what: Callable[[], str], timeout_s: float = 40) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, f"in {timeout_s} s there was no {what()}"
        time.sleep(0.05)


@pytest.fixture
def github() -> Iterator[SlowGitHub]:
    slow = SlowGitHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            slow.gate.wait(60)
            body = b'{"message": "Not Found"}'
            self.send_response(404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def handle(self) -> None:
            try:
                super().handle()
            except (BrokenPipeError, ConnectionResetError):
                return  # who asked was killed

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    slow.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield slow
    slow.gate.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(postgres_url: str, redis_url: str, github: SlowGitHub, tmp_path: Path) -> Iterator[Cluster]:
    """A catalog of its own, an empty Redis database, and beat."""
    url = f"{redis_url.rsplit('/', 1)[0]}/{1 + os.getpid() % 15}"
    with redis.Redis.from_url(url) as broker:
        broker.flushdb()
    engine = upgraded(postgres_url)
    made = Cluster(engine, github, url, tmp_path / "home")
    with made.celery("beat", "--loglevel", "WARNING"):
        yield made
    engine.dispose()


def test_a_job_goes_through_the_cluster_to_its_verdict(cluster: Cluster) -> None:
    cluster.github.gate.set()
    subject_id = cluster.enqueue()
    with cluster.worker("one"):
        job = cluster.wait_for(subject_id, "rejected")
        assert (job["reason"], job["attempt"], job["fence"]) == ("repository_not_found", 1, 1)
        app = make_app()
        app.conf.update(broker_url=cluster.redis_url)
        with app.connection_for_write() as connection:
            for _ in range(3):  # doubled hints find nothing to claim
                app.send_task(RUN, (job["id"],), queue="crawl", connection=connection)
        other = cluster.enqueue("acme/other")
        cluster.wait_for(other, "rejected")
        assert cluster.job(subject_id) == job


def test_a_worker_and_beat_show_that_they_live_while_the_broker_hears_them(cluster: Cluster, tmp_path: Path) -> None:
    worker, beat = tmp_path / "worker", tmp_path / "beat"
    with cluster.worker("one", SWEFACTORY_HEARTBEAT_FILE=str(worker)) as alive:
        with cluster.celery("beat", "--loglevel", "WARNING", SWEFACTORY_HEARTBEAT_FILE=str(beat)):
            for path in (worker, beat):
                wait_until(path.exists, lambda: "heartbeat")
                begun = time.time()
                wait_until(lambda path=path, begun=begun: path.stat().st_mtime > begun, lambda: "second heartbeat")
        os.kill(alive.pid, signal.SIGSTOP)
        time.sleep(1)
        seen = [path.stat().st_mtime for path in (worker, beat)]
        time.sleep(5)  # two heartbeats of Celery's
        assert [path.stat().st_mtime for path in (worker, beat)] == seen


def test_a_killed_child_and_a_killed_worker_cost_one_attempt_each(cluster: Cluster) -> None:
    subject_id = cluster.enqueue()
    with cluster.worker("one") as worker:
        first = cluster.wait_for(subject_id, "doing")
        child = int(str(first["lease_owner"]).rsplit(":", 1)[1])
        assert child != worker.pid  # the name was made in the child
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: cluster.job(subject_id)["attempt"] == 2, lambda: "second attempt")
        worker.kill()
        worker.wait(10)
    cluster.github.gate.set()
    with cluster.worker("two"):
        job = cluster.wait_for(subject_id, "rejected")
    assert (job["attempt"], job["fence"]) == (3, 3)


def test_a_soft_shutdown_gives_the_job_in_hand_back_unspent(cluster: Cluster) -> None:
    subject_id = cluster.enqueue()
    with cluster.worker("one") as worker:
        cluster.wait_for(subject_id, "doing")
        worker.send_signal(signal.SIGQUIT)
        job = cluster.wait_for(subject_id, "todo", timeout_s=_LEASE_S + 5)
        assert (job["attempt"], job["message"]) == (0, "interrupted")
        assert worker.wait(20) == 0


def test_hints_that_a_broker_lost_are_sent_again(cluster: Cluster) -> None:
    cluster.github.gate.set()
    subject_id = cluster.enqueue()
    with cluster.worker("control", queues="control"):
        cluster.wait_for(subject_id, "queued")
        with redis.Redis.from_url(cluster.redis_url) as broker:
            broker.flushdb()
        with cluster.worker("one", queues="crawl"):
            assert cluster.wait_for(subject_id, "rejected")["attempt"] == 1


def test_a_worker_whose_clock_is_ahead_of_beats_takes_its_ticks_all_the_same(cluster: Cluster, tmp_path: Path) -> None:
    library = clock_library(tmp_path)
    assert library, "no C compiler"
    subject_id = cluster.enqueue()
    with cluster.worker("ahead", queues="control", LD_PRELOAD=str(library), SWEFACTORY_CLOCK_SHIFT_S="3600"):
        cluster.wait_for(subject_id, "queued", timeout_s=120)


def test_a_broker_that_was_killed_and_came_back_empty_loses_nothing(
    postgres_url: str, github: SlowGitHub, tmp_path: Path
) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on PATH")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)

    broker = start()
    engine = upgraded(postgres_url)
    made = Cluster(engine, github, f"redis://127.0.0.1:{port}/0", tmp_path / "home")
    try:
        with made.celery("beat", "--loglevel", "WARNING"), made.worker("one"):
            in_hand = made.enqueue("acme/inhand")
            made.wait_for(in_hand, "doing")
            broker.kill()
            broker.wait()
            later = made.enqueue("acme/later")
            github.gate.set()
            made.wait_for(in_hand, "rejected")  # the job in hand does not need the broker
            broker = start()
            assert made.wait_for(later, "rejected", timeout_s=60)["attempt"] == 1
            assert made.job(in_hand)["attempt"] == 1
    finally:
        broker.kill()
        broker.wait()
        engine.dispose()


def test_a_queue_for_every_stage_and_no_state_in_celery() -> None:
    from db.enums import StageName
    from swefactory.config import Settings

    found = configuration(Settings())
    assert {queue.name for queue in found["task_queues"]} == {*StageName, "control"}
    assert not found["task_acks_late"]
    assert found["task_ignore_result"]
    assert found["accept_content"] == ["json"]
    assert found["beat_schedule"]["dispatch"]["task"] == DISPATCH


def test_importing_the_application_reads_no_environment_and_opens_nothing() -> None:
    code = "import workers.app, sys; sys.exit('swefactory.pipeline' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "SWEFACTORY_LEASE_S": "not a number"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
