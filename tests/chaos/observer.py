"""Sees who has a job in hand, and measures how long a job whose worker was killed waits for another.

Not while all that run have others in hand, as any job would wait then; and once its lease has ended, until it is taken
up or another is whose turn was before its own. One property: a job that is never taken up is never forgotten.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine, text

from db.engine import CatalogError, make_engine, reading, told
from db.enums import JobState

_ASKED_EVERY_S = 0.1


@dataclass
class _Orphan:
    job_id: int
    fence: int
    since: float
    waited_s: float = 0.0
    n_claims: int | None = None  # of all jobs, when its lease had ended
    is_had: bool = False  # somebody was free for it


@dataclass
class Observer:
    """Asks the catalog all the while; what it cannot answer, because it is being restarted, is asked again."""

    url: str
    lease_s: float
    recovered_s: list[float] = field(default_factory=list)
    in_all_s: list[float] = field(default_factory=list)  # the same, with the time that is not counted
    holders: frozenset[int] = frozenset()  # the processes that have a job in hand, or died with one
    nobody_is_free: Callable[[], bool] = lambda: False
    _orphans: list[_Orphan] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._engine = make_engine(self.url)
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(60)
        self._engine.dispose()

    def killed(self, pid: int) -> None:
        """Notes the jobs that this process, dead by now, had in hand."""
        now = time.monotonic()
        rows = self._asked("SELECT id, fence FROM job WHERE state = 'doing' AND lease_owner LIKE :who", who=f"%:{pid}")
        with self._lock:
            self._orphans += [_Orphan(job_id, fence, now) for job_id, fence in rows]

    @property
    def n_noted(self) -> int:
        """How many jobs have lost their worker so far."""
        with self._lock:
            return len(self._orphans) + len(self.recovered_s)

    @property
    def n_orphans(self) -> int:
        with self._lock:
            return len(self._orphans)

    def percentile_s(self, share: float) -> float:
        return percentile(self.recovered_s, share)

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._ended.wait(_ASKED_EVERY_S):
            passed_s, looked = time.monotonic() - looked, time.monotonic()
            is_counted = not self.nobody_is_free()
            owners = self._asked("SELECT lease_owner FROM job WHERE state = 'doing'")
            self.holders = frozenset(int(owner.rpartition(":")[2]) for (owner,) in owners)
            with self._lock:
                asked = list(self._orphans)
                for orphan in asked:
                    orphan.waited_s += passed_s * (is_counted and not orphan.is_had)
            if asked:
                ids = ", ".join(str(orphan.job_id) for orphan in asked)
                rows = self._asked(f"SELECT id, fence, state FROM job WHERE id IN ({ids})")
                self._note({job_id: (fence, state) for job_id, fence, state in rows})
                for (n_claims,) in self._asked("SELECT sum(fence) FROM job"):
                    self._note_claims(n_claims)

    def _note_claims(self, n_claims: int) -> None:
        with self._lock:
            for orphan in self._orphans:
                if orphan.n_claims is None and orphan.waited_s > self.lease_s:
                    orphan.n_claims = n_claims
                elif orphan.n_claims is not None and n_claims > orphan.n_claims:
                    orphan.is_had = True

    def _note(self, found: dict[int, tuple[int, str]]) -> None:
        with self._lock:
            for orphan in list(self._orphans):
                fence, state = found.get(orphan.job_id, (orphan.fence, JobState.DOING))
                # marked as queued it is still waiting for a worker
                if fence > orphan.fence or state not in (JobState.DOING, JobState.QUEUED):
                    self.recovered_s.append(orphan.waited_s)
                    self.in_all_s.append(time.monotonic() - orphan.since)
                    self._orphans.remove(orphan)

    def _asked(self, query: str, **parameters: str) -> list[tuple[Any, ...]]:
        while not self._ended.is_set():
            try:
                return asked(self._engine, query, **parameters)
            except CatalogError:
                time.sleep(_ASKED_EVERY_S)
        return []


def percentile(values: list[float], share: float) -> float:
    found = sorted(values)
    return found[int(share * (len(found) - 1))] if found else 0.0


def asked(engine: Engine, query: str, **parameters: str) -> list[tuple[Any, ...]]:
    with told(engine), reading(engine).connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]
