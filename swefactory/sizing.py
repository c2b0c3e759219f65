"""How many workers and how much disk a funnel needs. One property: each number follows from what this catalog measured;
what was not measured is left open, never guessed.

    repositories ─► crawl jobs ─► pull requests ─► candidate jobs ─► candidates ─► environment and validation jobs
    trajectories ─► rollout and grade jobs

Jobs of a stage are the funnel's subjects times the jobs that one subject took here. An hour of a worker is an hour of
one process of that stage (`-c 1`). A crawl job is one page of pull requests and is opened again for the next: its
duration is that of the last page, and the pages are counted from the pull requests looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from db import jobs, queries
from db.enums import StageName

_PAGE = 25  # pull requests in a page of a crawl
_BUSY = 0.8  # of their time workers have something to do; the rest is waiting for others and starting


@dataclass(frozen=True)
class Funnel:
    """How many subjects come out at each step."""

    repositories: int
    candidates: int
    instances: int
    trajectories: int

    def times(self, factor: int) -> "Funnel":
        return Funnel(*(factor * n for n in (self.repositories, self.candidates, self.instances, self.trajectories)))


PUBLISHED = Funnel(151_472, 146_568, 10_169, 8_209)  # a published crawl of this kind


@dataclass(frozen=True)
class Measured:
    """What this catalog says: costs of jobs, and counts and bytes by kind (see the query `sizes`)."""

    costs: Mapping[StageName, jobs.Cost]
    counts: Mapping[str, int]
    sizes: Mapping[str, float]

    def each(self, what: str, of: str) -> float | None:
        """How many `what` there are for one of `of`; None where there is none of either."""
        n, of_n = self.counts.get(what, 0), self.counts.get(of, 0)
        return n / of_n if n and of_n else None


@dataclass(frozen=True)
class StageNeed:
    """None where nothing of the stage has been measured here."""

    stage: StageName
    n_jobs: int | None
    seconds_each: float | None
    worker_hours: float | None

    def n_workers(self, days: float) -> float | None:
        return None if self.worker_hours is None else self.worker_hours / (24 * days * _BUSY)


@dataclass(frozen=True)
class DiskNeed:
    what: str
    n: int | None
    bytes_each: float | None

    @property
    def n_bytes(self) -> float | None:
        return None if self.n is None or self.bytes_each is None else self.n * self.bytes_each


def measure(engine: Engine) -> Measured:
    """Asks the catalog."""
    _, rows = queries.run(engine, "sizes")
    counts = {str(what): int(str(n)) for what, n, _ in rows}
    sizes = {str(what): float(str(n_bytes)) for what, _, n_bytes in rows}
    costs = jobs.costs(engine)
    counts |= {f"{stage.value} jobs": cost.n for stage, cost in costs.items()}
    return Measured(costs, counts, sizes)


def stage_needs(measured: Measured, funnel: Funnel) -> Iterator[StageNeed]:
    """One for each stage, in their order."""
    for stage in StageName:
        per_subject, subjects = _jobs_of(stage, measured, funnel)
        cost = measured.costs.get(stage)
        if cost is None or per_subject is None:
            yield StageNeed(stage, None, None, None)
            continue
        n_jobs = round(per_subject * subjects)
        seconds = cost.seconds * cost.attempts
        yield StageNeed(stage, n_jobs, seconds, n_jobs * seconds / 3600)


def _jobs_of(stage: StageName, measured: Measured, funnel: Funnel) -> tuple[float | None, int]:
    """(jobs for each subject, subjects)."""
    match stage:
        case StageName.CRAWL:
            examined = measured.each("pull_requests_examined", "repositories")
            return (1 + examined / _PAGE if examined else None), funnel.repositories
        case StageName.CANDIDATE | StageName.ENVIRONMENT | StageName.VALIDATION:
            return measured.each(f"{stage.value} jobs", "candidates"), funnel.candidates
        case StageName.ROLLOUT | StageName.GRADE | StageName.SCORE:
            return measured.each(f"{stage.value} jobs", "rollouts"), funnel.trajectories


def disk_needs(measured: Measured, funnel: Funnel, mirror_bytes: float | None) -> Iterator[DiskNeed]:
    """Environments as if none were evicted; SWEFACTORY_DISK_BUDGET bounds them on each machine."""
    yield DiskNeed("mirrors", funnel.repositories, mirror_bytes)
    for what in ("environments", "artifacts"):
        per_candidate = measured.each(what, "candidates")
        n = round(per_candidate * funnel.candidates) if per_candidate else None
        n_here = measured.counts.get(what, 0)
        yield DiskNeed(what, n, measured.sizes[what] / n_here if n_here else None)
