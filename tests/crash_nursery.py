"""Dies at each step of each stage in turn, in forked processes, and then lets the rest be done.

    python tests/crash_nursery.py PLAN       a JSON file: settings, stages, steps, synthetic, dies

Prints each point at which a process died. After each death the leases are ended, as their time would, and the next
process goes on with the same catalog: what it finds is what the dead one left. With `synthetic`, the stages are those
below: one row for each finished job, through the pipeline's own code. Else they are the real ones; rollouts and their
scores are queued when what they need has been done.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from db import jobs
from db.engine import make_engine, session
from db.enums import AgentKind, ExportFormat, RejectReason, StageName
from db.models import Export
from swefactory import admin, rollout_choices
from swefactory.config import Settings
from swefactory.errors import Rejected
from swefactory.pipeline import owner_name, run_claimed, run_embedded
from swefactory.protocols import AgentSpec
from swefactory.stage import NextJob, Saved, Services, Stage
from swefactory.wiring import make_services
from tests.catalogs import let_time_pass

LATER = dict(zip(StageName, list(StageName)[1:], strict=False))


def synthetic(name: StageName) -> Stage[Any, Any]:
    """One row a job, in the transaction that ends it; two jobs that follow, of which the next stage drops one."""

    def load(db: Session, subject_id: int) -> int:
        return subject_id

    def work(services: Services, subject_id: int) -> int:
        if name is not StageName.CRAWL and subject_id % 2:
            raise Rejected(RejectReason.DOCS_ONLY, f"{subject_id} is odd")
        return subject_id

    def save(db: Session, subject_id: int, output: int | Rejected) -> Saved:
        path = f"{name}/{subject_id}/{type(output).__name__}"
        db.add(Export(format=ExportFormat.SWEBENCH, path=path, n_rows=1, sha256=""))
        if isinstance(output, Rejected):
            return Saved(rejected=output)
        following = LATER.get(name)
        return Saved(tuple(NextJob(following, 2 * subject_id + n) for n in (0, 1)) if following else ())

    return Stage(name, load, work, save)


SYNTHETIC: Mapping[StageName, Stage[Any, Any]] = {name: synthetic(name) for name in StageName}


@dataclass(frozen=True)
class Nursery:
    """What each process is told. `settings` are those of one that does not die."""

    settings: Settings
    stages: tuple[StageName, ...]
    steps: tuple[str, ...]
    is_synthetic: bool

    @cached_property
    def services(self) -> Services:
        """Made before the first fork: they open nothing, and each child would import them anew."""
        return make_services(self.settings, make_engine(self.settings.catalog_url))

    def go_on(self, settings: Settings) -> None:
        """Until nothing is left to do, or until it dies."""
        engine = make_engine(settings.catalog_url)
        if not self.is_synthetic:
            run_embedded(settings, engine, stages=self.stages)
            return
        services = replace(self.services, settings=settings)
        while claim := jobs.claim(engine, owner_name(), lease_s=settings.lease_s):
            run_claimed(claim, engine, services, SYNTHETIC)

    def died(self, at: str = "") -> bool:
        """Whether a process that went on was killed; one that failed otherwise ends this one."""
        assert self.services
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self.go_on(self.settings.model_copy(update={"die_at": at}))
                code = 0
            except Exception:  # noqa: BLE001 - what it was is told, and the test fails
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code not in (0, -signal.SIGKILL):
            sys.exit(f"a process ended with {code}, told to die at {at or 'no step'}")
        return code == -signal.SIGKILL

    def sweep(self) -> None:
        for stage in self.stages:
            self.prepare(stage)
            for at in [f"{stage}:{step}" for step in self.steps]:
                if self.died(at):
                    print(at, flush=True)
                self.with_engine(lambda engine: let_time_pass(engine, "lease_until"))

    def prepare(self, stage: StageName) -> None:
        """What an administrator does when all that came before has been done."""
        if not self.is_synthetic and (queue := ASKED_FOR.get(stage)):
            self.died()
            self.with_engine(queue)

    def with_engine(self, act: Callable[[Engine], None]) -> None:
        """Made and left behind between two forks: none is shared with a child."""
        engine = make_engine(self.settings.catalog_url)
        act(engine)
        engine.dispose()


def queue_rollouts(engine: Engine) -> None:
    with session(engine) as db:
        for kind in (AgentKind.ORACLE, AgentKind.NOP):
            admin.add_rollouts(db, AgentSpec(kind=kind, name=kind.value), max_attempts=100)


def queue_scores(engine: Engine) -> None:
    with session(engine) as db:
        rollout_choices.ask(db, rollout_choices.BY_TESTS, max_attempts=100)


ASKED_FOR = {StageName.ROLLOUT: queue_rollouts, StageName.SCORE: queue_scores}


def main(plan: dict[str, Any]) -> None:
    stages = tuple(StageName(name) for name in plan["stages"])
    nursery = Nursery(Settings(**plan["settings"]), stages, tuple(plan["steps"]), plan["synthetic"])
    if plan["dies"]:
        nursery.sweep()
    else:
        for stage in stages:
            nursery.prepare(stage)
    nursery.died()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
