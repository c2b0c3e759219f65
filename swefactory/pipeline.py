"""The one code path from a job to its result, for the embedded loop and for Celery's workers alike.

    claim ─► load (short transaction) ─► work (no transaction) ─► save + next jobs + finish (one transaction)

One property: a job's rows, its end and the jobs that follow are committed together by the holder of its fence,
or not at all.
"""

import logging
import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from db import jobs
from db.engine import make_engine, session
from db.enums import JobState, StageName
from swefactory import batches, held_folders
from swefactory.config import Settings
from swefactory.errors import InfrastructureError, Rejected, SandboxUnavailable, Transient, UsageError
from swefactory.held_folders import own_temporary_files
from swefactory.interrupts import deferred, interruptible
from swefactory.stage import Saved, Services, Stage
from swefactory.stages import candidates, crawl, environments, grades, rollouts, scores, validation
from swefactory.wiring import make_services

_log = logging.getLogger(__name__)

STAGES: Mapping[StageName, Stage[Any, Any]] = {
    stage.name: stage
    for stage in (
        crawl.STAGE, candidates.STAGE, environments.STAGE, validation.STAGE, rollouts.STAGE, grades.STAGE,
        scores.STAGE,
    )
}  # fmt: skip

# Between any two of these a process may die; `die_at` makes it so, and tests try them all.
STEPS = ("claimed", "loaded", "worked", "saved", "ended", "followed", "committed")
_POLL_S = 0.5
_MENDING_S = 300.0
MENDABLE = (UsageError, SandboxUnavailable)  # wrong token, no namespaces: every further job would meet it too
_N_BATCH = 4  # validations that a cluster's worker takes on beside the one it was told of
_WORTH_WAITING_S = 20.0  # an embedded run without --watch waits this long for a job that is not due yet


def owner_name() -> str:
    """Who holds a lease: made in the process that works, because a name made at import is the parent's."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_job(
    job_id: int, *, settings: Settings, engine: Engine, owner: str, services: Services | None = None
) -> JobState | None:
    """Claims job `job_id` and runs it to its end; the state it reached, or None when it was not claimable."""
    claim = jobs.claim(engine, owner, lease_s=settings.lease_s, job_id=job_id)
    if claim is None:
        return None
    return _run_or_postpone(claim, engine, services or make_services(settings, engine))


def _run_or_postpone(claim: jobs.Claim, engine: Engine, services: Services) -> JobState | None:
    try:
        return run_claimed(claim, engine, services)
    except MENDABLE as error:  # the job waits until somebody has mended this worker's settings or machine
        jobs.postpone(engine, claim, str(error), _MENDING_S)
        return JobState.TODO


def run_batch(
    job_id: int, *, settings: Settings, engine: Engine, owner: str, services: Services
) -> Iterator[tuple[int, JobState | None]]:
    """Runs job `job_id` and then, where it was a validation, a few that wait in the same environment."""
    claim = jobs.claim(engine, owner, lease_s=settings.lease_s, job_id=job_id)
    if claim is None:
        yield job_id, None
        return
    yield job_id, _run_or_postpone(claim, engine, services)
    for other in batches.beside(engine, claim)[:_N_BATCH]:
        with interruptible():
            pass  # a signal that came while the last job was saved
        yield other, run_job(other, settings=settings, engine=engine, owner=owner, services=services)


def run_claimed(
    claim: jobs.Claim, engine: Engine, services: Services, stages: Mapping[StageName, Stage[Any, Any]] = STAGES
) -> JobState | None:
    """Works on a claimed job; the state it reached, None when the lease was lost. Every way out leaves the job in a
    state that says what happened.

    Raises MENDABLE errors, the job left as it was claimed.
    """
    try:
        with jobs.Heartbeat(engine, claim, services.settings.lease_s):
            return _work(stages[claim.stage], claim, engine, replace(services, label=claim.label))
    except jobs.LeaseLost:
        _log.warning("job %s: the lease was lost meanwhile; this result is discarded, its new holder's counts", claim)
        return None
    except Transient as error:
        jobs.postpone(engine, claim, str(error), error.retry_after_s)
        return JobState.TODO
    except MENDABLE:
        raise
    except KeyboardInterrupt:
        jobs.release(engine, claim)
        raise
    except InfrastructureError as error:
        return jobs.fail(engine, claim, str(error))
    except Exception:  # noqa: BLE001 - a bug of ours: its traceback is kept on the job, the other jobs go on
        return jobs.fail(engine, claim, traceback.format_exc())


def _work(stage: Stage[Any, Any], claim: jobs.Claim, engine: Engine, services: Services) -> JobState:
    settings = services.settings
    _step("claimed", claim, settings)
    with session(engine) as db:
        subject = stage.load(db, claim.subject_id)
    _step("loaded", claim, settings)
    try:
        with interruptible():
            output = stage.work(services, subject)
    except Rejected as verdict:
        output = verdict
    _step("worked", claim, settings)
    with session(engine) as db:
        saved = stage.save(db, claim.subject_id, output)
        _step("saved", claim, settings, db)
        if saved.rejected:
            jobs.reject(db, claim, saved.rejected.reason, saved.rejected.detail)
        else:
            jobs.succeed(db, claim)
        _step("ended", claim, settings)
        _enqueue(db, saved, settings, claim.repository_id)
        _step("followed", claim, settings)
    _step("committed", claim, settings)
    return JobState.REJECTED if saved.rejected else JobState.SUCCEEDED


def _step(step: str, claim: jobs.Claim, settings: Settings, db: Session | None = None) -> None:
    """Where this process dies when it was told so; the rows of `db` have reached the database then."""
    if settings.die_at and settings.die_at == f"{claim.stage}:{step}":
        if db is not None:
            db.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def _enqueue(db: Session, saved: Saved, settings: Settings, repository_id: int | None) -> None:
    n = settings.max_attempts
    for job in saved.next_jobs:
        jobs.enqueue(db, job.stage, job.subject_id, repository_id=repository_id, max_attempts=n, again=job.again)


@dataclass(frozen=True)
class RunSummary:
    """How an embedded run ended: jobs left of its stages, and in how many seconds the first of them is due (None:
    none is)."""

    n_unfinished: int
    next_due_s: float | None


def run_embedded(
    settings: Settings,
    engine: Engine,
    *,
    n_processes: int = 1,
    watch: bool = False,
    stages: Sequence[StageName] | None = None,
) -> RunSummary:
    """Works until no job is claimable (for ever with `watch`), in this process or in `n_processes` of its own."""
    services = make_services(settings, engine)
    sweep(services, engine)
    if n_processes == 1:
        with own_temporary_files(services.settings.temporary_dir):
            _loop(settings, engine, services, watch, stages)
    else:
        _loop_in_processes(settings, n_processes, watch, stages)
    n_unfinished = sum(
        n for (stage, state), n in jobs.counts(engine).items() if state in jobs.OPEN and (not stages or stage in stages)
    )
    return RunSummary(n_unfinished, jobs.next_due_s(engine, stages))


def sweep(services: Services, engine: Engine) -> None:
    """Removes what killed workers of this machine left: private folders, temporary files, and then sandboxes, which an
    engine may refuse."""
    services.checkouts.sweep()
    held_folders.sweep(services.settings.temporary_dir)
    services.sandboxes.sweep(lambda label: is_live(engine, label))


def is_live(engine: Engine, label: str) -> bool:
    """Asked of the catalog after the sandbox was seen: an older answer would not know a job claimed since."""
    with session(engine, writing=False) as db:
        return label in jobs.live_labels(db)


def _loop(
    settings: Settings, engine: Engine, services: Services, watch: bool, stages: Sequence[StageName] | None
) -> None:
    owner = owner_name()
    beside: tuple[int, ...] = ()
    with deferred():
        while not _is_orphan():
            with interruptible():
                pass  # a signal that came while the last job was saved
            claim = jobs.claim(engine, owner, lease_s=settings.lease_s, stages=stages, before=beside)
            if claim is not None:
                _run_or_release(claim, engine, services)
                beside = batches.beside(engine, claim)
            elif watch or _soon(engine, stages):
                with interruptible():
                    time.sleep(_POLL_S)
            else:
                return


def _is_orphan() -> bool:
    """Whether this is one of several processes of a run whose own process was killed: nobody would ever end it."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _run_or_release(claim: jobs.Claim, engine: Engine, services: Services) -> None:
    """What somebody has to mend ends an embedded run at once: they are there to do it."""
    try:
        run_claimed(claim, engine, services)
    except MENDABLE as error:
        jobs.postpone(engine, claim, str(error), 0.0)
        raise


def _soon(engine: Engine, stages: Sequence[StageName] | None) -> bool:
    """Whether an unfinished job of these stages is due soon, or another process works on one: others may follow it,
    and when its process died it is taken up. Those of other stages do not count: they would be waited for for ever."""
    if any(state is JobState.DOING and (not stages or stage in stages) for stage, state in jobs.counts(engine)):
        return True
    due_s = jobs.next_due_s(engine, stages)
    return due_s is not None and due_s < _WORTH_WAITING_S


def _loop_in_processes(settings: Settings, n_processes: int, watch: bool, stages: Sequence[StageName] | None) -> None:
    """Spawned, not forked: threads and database connections do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    complaints: SimpleQueue[Exception] = context.SimpleQueue()
    arguments = (settings, watch, stages, complaints)
    processes = [context.Process(target=_process_main, args=arguments, name=f"worker-{n}") for n in range(n_processes)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        _stop(processes)
        raise
    if not complaints.empty():
        raise complaints.get()
    crashed = [process.name for process in processes if process.exitcode not in (0, -signal.SIGINT)]
    if crashed:
        raise InfrastructureError(
            f"{', '.join(crashed)} died; its job is taken up again when its lease of {settings.lease_s:.0f} s ends: "
            "run again"
        )


def _stop(processes: Sequence[BaseProcess], grace_s: float = 20) -> None:
    """Asks each process to give its job back; ends the ones that do not within the grace time."""
    for process in processes:
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGINT)
    until = time.monotonic() + grace_s
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def interrupt_once() -> None:
    """SIGINT and SIGTERM raise KeyboardInterrupt the first time and are ignored after: a second one, which a
    terminal and a parent both send, must not break off giving the job back."""

    def handler(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def _process_main(
    settings: Settings, watch: bool, stages: Sequence[StageName] | None, complaints: "SimpleQueue[Exception]"
) -> None:
    interrupt_once()
    engine = make_engine(settings.catalog_url)
    try:
        with own_temporary_files(settings.temporary_dir):
            _loop(settings, engine, make_services(settings, engine), watch, stages)
    except MENDABLE as error:
        complaints.put(error)
    except KeyboardInterrupt:
        os._exit(0)  # the job was given back; a traceback from each process would only hide that
    finally:
        engine.dispose()
