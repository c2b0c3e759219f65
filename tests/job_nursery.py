"""Forks workers on a catalog and kills or stops them at random, then lets them finish.

    python tests/job_nursery.py URL N_WORKERS SEED CHAOS_SECONDS

Prints how many it killed and stopped. Each job's effect is one row, written in the transaction that ends the job.
"""

import os
import random
import signal
import sys
import time

from db import jobs
from db.engine import CatalogError, make_engine, session
from db.enums import ExportFormat
from db.models import Export
from swefactory.pipeline import owner_name
from tests.chaos import witness

LEASE_S = 0.8


def work(url: str) -> None:
    """A worker's life: the engine is made after the fork, the owner's name too."""
    engine = make_engine(url)
    owner = owner_name()
    while jobs.unfinished(engine):
        claim = jobs.claim(engine, owner, lease_s=LEASE_S)
        if claim is None:
            time.sleep(0.05)
            continue
        with jobs.Heartbeat(engine, claim, LEASE_S):
            time.sleep(random.uniform(0.005, 0.12))
        try:
            with session(engine) as db:
                db.add(Export(format=ExportFormat.SWEBENCH, path=f"{claim.subject_id} by {claim.label}",
                              n_rows=1, sha256=""))  # fmt: skip
                jobs.succeed(db, claim)
        except jobs.LeaseLost:
            print("zombie", flush=True)


def child(url: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        random.seed()
        work(url)
        code = 0
    except CatalogError as error:
        print(error, file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def main(url: str, n_workers: int, seed: int, chaos_s: float) -> None:
    witness.name_connections()
    chance = random.Random(seed)
    living = {child(url) for _ in range(n_workers)}
    stopped: dict[int, float] = {}
    calm_at = time.monotonic() + chaos_s
    while living:
        time.sleep(chance.uniform(0.1, 0.4))
        living = reap(url, living)
        calm = time.monotonic() > calm_at
        for pid, until in list(stopped.items()):
            if calm or pid not in living or time.monotonic() > until:
                del stopped[pid]
                if pid in living:
                    os.kill(pid, signal.SIGCONT)
        victims = sorted(living - stopped.keys())
        if calm or not victims:
            continue
        victim = chance.choice(victims)
        if chance.random() < 0.3:
            os.kill(victim, signal.SIGSTOP)
            stopped[victim] = time.monotonic() + 1.5 * LEASE_S
            print("stopped", flush=True)
        else:
            os.kill(victim, signal.SIGKILL)
            print("killed", flush=True)


def reap(url: str, living: set[int]) -> set[int]:
    """Who is left; a worker that did not end by itself is replaced."""
    left = set(living)
    for pid in living:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            left.discard(pid)
            if os.waitstatus_to_exitcode(status) != 0:
                left.add(child(url))
    return left


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
