"""The two tasks: run one job, and dispatch the jobs that are due. One property: each may be lost or doubled.

A doubled `run` finds the job taken; a lost one is hinted at again. Engines and the owner's name are made in the
process that works: made before the fork they would be shared by all children.
"""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache

from celery import shared_task
from celery.utils.log import get_task_logger
from kombu.exceptions import OperationalError
from sqlalchemy import Engine

from db import jobs
from db.engine import CatalogError, make_engine
from db.enums import StageName
from swefactory.config import Settings
from swefactory.errors import InfrastructureError, SwefactoryError
from swefactory.held_folders import own_temporary_files
from swefactory.interrupts import deferred
from swefactory.pipeline import owner_name, run_batch, sweep
from swefactory.stage import Services
from swefactory.wiring import make_services
from workers.app import DISPATCH, RUN

_log = get_task_logger(__name__)
_SWEEP_INTERVAL_S = 300.0
_stack = ExitStack()  # of a worker process: never closed, its end is what its folder waits for


@dataclass
class _Process:
    """What one worker process keeps between its jobs."""

    settings: Settings
    engine: Engine
    owner: str
    services: Services
    swept_at: float = field(default=float("-inf"))
    dispatched_at: float = field(default=float("-inf"))


@lru_cache(maxsize=1)
def _process(pid: int) -> _Process:
    """Keyed by the process, so that a child never uses what its parent made."""
    settings = Settings()
    _stack.enter_context(own_temporary_files(settings.temporary_dir))
    engine = make_engine(settings.catalog_url)
    return _Process(settings, engine, owner_name(), make_services(settings, engine))


@shared_task(name=RUN, throws=(SwefactoryError, CatalogError))
def run(job_id: int) -> None:
    """Looks at one job: claims it if it is still to be claimed, and runs it and what goes with it to their ends."""
    here = _process(os.getpid())
    _sweep_now_and_then(here)
    with deferred():
        done = run_batch(job_id, settings=here.settings, engine=here.engine, owner=here.owner, services=here.services)
        for each, state in done:
            _log.info("job %s: %s", each, state or "not claimable, an old hint")


@shared_task(name=DISPATCH, throws=(SwefactoryError, CatalogError))
def dispatch() -> None:
    """Sends a hint for each job that is due, bounded per stage; what cannot be sent is put back at once."""
    here = _process(os.getpid())
    if time.monotonic() - here.dispatched_at < here.settings.dispatch_interval_s / 2:
        return  # ticks that piled up while nobody took them
    here.dispatched_at = time.monotonic()
    limits = dict.fromkeys(StageName, here.settings.n_hints)
    due = jobs.dispatchable(here.engine, limits, hint_s=here.settings.hint_s)
    unsent = {job_id for job_id, _ in due}
    try:
        for job_id, stage in due:
            run.apply_async((job_id,), queue=stage.value)
            unsent.discard(job_id)
    except OperationalError as error:
        _log.error("the broker took %s of %s hints: %s", len(due) - len(unsent), len(due), error)
    finally:
        jobs.withdraw(here.engine, unsent)


def _sweep_now_and_then(here: _Process) -> None:
    """Removes what lost workers left. Each process does it, for each may be the only one on its machine. One that
    reaches no engine, as a crawl's worker in a container, has no sandboxes to remove; a job that needs one says so. A
    sweep that fails costs no job its hint, it is done again."""
    if time.monotonic() - here.swept_at < _SWEEP_INTERVAL_S:
        return
    try:
        sweep(here.services, here.engine)
    except InfrastructureError as error:
        _log.info("no sandboxes are swept here: %s", error)
    here.swept_at = time.monotonic()
