"""Random schedules of everything that can happen to jobs, against a model of a few lines.

I1 no job is lost · I2 each opening of a job has at most one effect · I3 fences only grow · I4 attempts stay within
their maximum · I5 what has ended stays as it is until somebody re-opens it. SWEFACTORY_SCHEDULES sets how many
schedules of 40 steps are tried on SQLite.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, text

from db import jobs
from db.engine import session
from db.enums import ExportFormat, JobState, RejectReason, StageName
from db.models import Export
from tests.catalogs import BOTH, catalog_url, upgraded

_OWNER = "worker:1"
_SUBJECTS = st.integers(1, 3)
_LATEST_FIRST = st.sampled_from([0, 0, 0, 1, 1, 2, 5])  # most claims are old ones: the newest is the one that holds
_PAST = "2001-01-01 00:00:00.000000"
_N_SCHEDULES = int(os.environ.get("SWEFACTORY_SCHEDULES", "60"))


@dataclass(frozen=True)
class Model:
    """What a job should be."""

    state: JobState = JobState.TODO
    attempt: int = 0
    max_attempts: int = 3
    fence: int = 0
    due: bool = True
    expired: bool = False  # of a lease, or of a hint
    n_openings: int = 1

    @property
    def claimable(self) -> bool:
        match self.state:
            case JobState.TODO | JobState.FAILED:
                return self.due
            case JobState.DOING:
                return self.expired
            case _:
                return self.state is JobState.QUEUED

    @property
    def ended(self) -> bool:
        return self.state in jobs.ENDED

    def buried(self) -> "Model":
        lost = self.state is JobState.DOING and self.expired and self.attempt >= self.max_attempts
        return replace(self, state=JobState.DEAD) if lost else self

    def reopened(self) -> "Model":
        opened = replace(self, state=JobState.TODO, attempt=0, due=True, expired=False)
        return replace(opened, n_openings=self.n_openings + 1)


class JobMachine(RuleBasedStateMachine):
    """Every rule does one thing to the catalog and the same to the model, and compares what they answer."""

    engine: Engine

    @initialize()
    def begin(self) -> None:
        with self.engine.begin() as connection:
            for table in ("job", "export", "stage_hold"):
                connection.execute(text(f"DELETE FROM {table}"))
        self.model: dict[int, Model] = {}
        self.claims: list[jobs.Claim] = []  # all ever made; most are zombies
        self.seen: dict[int, Model] = {}
        self.n_finishes = 0
        self.is_held = False
        for subject_id in (1, 2):
            self.enqueue(subject_id, again=False, max_attempts=subject_id)

    # ------------------------------------------------------------ helpers

    def bury(self) -> None:
        self.model = {subject_id: job.buried() for subject_id, job in self.model.items()}

    def holds(self, claim: jobs.Claim) -> bool:
        job = self.model[claim.subject_id]
        return job.state is JobState.DOING and job.fence == claim.fence

    def change(self, subject_id: int, **fields: Any) -> None:
        self.model[subject_id] = replace(self.model[subject_id], **fields)

    def rows(self) -> dict[int, Any]:
        with self.engine.connect() as connection:
            return {row.subject_id: row for row in connection.execute(text("SELECT * FROM job"))}

    def ids(self, subject_ids: set[int]) -> list[int]:
        return [row.id for subject_id, row in self.rows().items() if subject_id in subject_ids]

    def took(self, claim: jobs.Claim | None) -> None:
        """A claim must be of a job the model calls claimable; no claim means there is none."""
        self.bury()
        if claim is None:
            return
        job = self.model[claim.subject_id]
        assert job.claimable
        assert (claim.attempt, claim.fence) == (job.attempt + 1, job.fence + 1)
        doing = {"state": JobState.DOING, "expired": False}
        self.change(claim.subject_id, **doing, attempt=claim.attempt, fence=claim.fence)
        self.claims.append(claim)

    # ------------------------------------------------------------ rules

    @rule(subject_id=_SUBJECTS, again=st.booleans(), max_attempts=st.integers(1, 2))
    def enqueue(self, subject_id: int, again: bool, max_attempts: int) -> None:
        with session(self.engine) as db:
            opened = jobs.enqueue(db, StageName.CRAWL, subject_id, again=again, max_attempts=max_attempts)
        known = self.model.get(subject_id)
        assert opened == (known is None or (again and known.ended))
        if opened:
            model = known.reopened() if known else Model()
            self.model[subject_id] = replace(model, max_attempts=max_attempts)

    @rule()
    def claim(self) -> None:
        claim = jobs.claim(self.engine, _OWNER, lease_s=1000)
        claimable = not self.is_held and any(job.buried().claimable for job in self.model.values())
        assert (claim is not None) == claimable
        self.took(claim)

    @rule(subject_id=_SUBJECTS)
    def claim_by_hint(self, subject_id: int) -> None:
        for job_id in self.ids({subject_id}):
            claim = jobs.claim(self.engine, _OWNER, lease_s=1000, job_id=job_id)
            assert (claim is not None) == (not self.is_held and self.model[subject_id].buried().claimable)
            self.took(claim)

    @rule(n=_LATEST_FIRST, verdict=st.booleans())
    def finish(self, n: int, verdict: bool) -> None:
        """With an effect in the same transaction; a zombie leaves neither an end nor an effect."""
        if not self.claims:
            return
        claim = self.claims[-1 - n % len(self.claims)]
        held = self.holds(claim)
        try:
            with session(self.engine) as db:
                self.n_finishes += 1
                path = f"{claim.subject_id}/{self.model[claim.subject_id].n_openings}/{self.n_finishes}"
                db.add(Export(format=ExportFormat.SWEBENCH, path=path, n_rows=1, sha256=""))
                db.flush()
                if verdict:
                    jobs.reject(db, claim, RejectReason.DOCS_ONLY, "")
                else:
                    jobs.succeed(db, claim)
        except jobs.LeaseLost:
            assert not held
        else:
            assert held
            self.change(claim.subject_id, state=JobState.REJECTED if verdict else JobState.SUCCEEDED)

    @rule(n=_LATEST_FIRST, how=st.sampled_from(["fail", "postpone", "release"]), later=st.booleans())
    def put_back(self, n: int, how: str, later: bool) -> None:
        if not self.claims:
            return
        claim = self.claims[-1 - n % len(self.claims)]
        held = self.holds(claim)
        delay_s = 1000 if later else 0
        match how:
            case "fail":
                state = jobs.fail(self.engine, claim, "broken", base_delay_s=delay_s)
                expected, attempt, due = JobState.FAILED, claim.attempt, not later
                if claim.attempt >= claim.max_attempts:
                    expected, due = JobState.DEAD, True
            case "postpone":
                state = jobs.postpone(self.engine, claim, "later", delay_s)
                expected, attempt, due = JobState.TODO, claim.attempt - 1, not later
            case _:
                state = jobs.release(self.engine, claim)
                expected, attempt, due = JobState.TODO, claim.attempt - 1, True
        assert state == (expected if held else None)
        if held:
            self.change(claim.subject_id, state=expected, attempt=attempt, due=due)

    @rule(n=_LATEST_FIRST)
    def renew(self, n: int) -> None:
        if self.claims:
            claim = self.claims[-1 - n % len(self.claims)]
            assert jobs.renew(self.engine, claim, 1000) == self.holds(claim)
            if self.holds(claim):
                self.change(claim.subject_id, expired=False)

    @rule(n=_SUBJECTS)
    def a_lease_or_a_hint_expires(self, n: int) -> None:
        """The holder crashed, was stopped, or is slow: it stays among the claims, a zombie to be."""
        held = [s for s, job in self.model.items() if job.state in (JobState.DOING, JobState.QUEUED)]
        if held:
            subject_id = held[n % len(held)]
            self.write("lease_until", subject_id)
            self.change(subject_id, expired=True)

    @rule()
    def every_lease_expires(self) -> None:
        """As after a night with the machine off."""
        for n in range(len(self.model)):
            self.a_lease_or_a_hint_expires(n)

    @rule(n=_SUBJECTS)
    def its_time_comes(self, n: int) -> None:
        waiting = [s for s, job in self.model.items() if not job.due]
        if waiting:
            subject_id = waiting[n % len(waiting)]
            self.write("not_before", subject_id)
            self.change(subject_id, due=True)

    def write(self, column: str, subject_id: int) -> None:
        with self.engine.begin() as connection:
            update = text(f"UPDATE job SET {column} = '{_PAST}' WHERE subject_id = :id")
            connection.execute(update, {"id": subject_id})

    @rule(limit=st.integers(0, 3))
    def dispatch(self, limit: int) -> None:
        hinted = {job_id for job_id, _ in jobs.dispatchable(self.engine, {StageName.CRAWL: limit})}
        self.bury()
        waiting = {s for s, job in self.model.items() if job.state is JobState.QUEUED and not job.expired}
        could = {s for s, job in self.model.items() if job.claimable and s not in waiting and not self.is_held}
        assert len(hinted) == max(0, min(limit - len(waiting), len(could)))
        for subject_id, row in self.rows().items():
            if row.id in hinted:
                assert subject_id in could
                self.change(subject_id, state=JobState.QUEUED, expired=False)

    @rule(is_held=st.booleans())
    def hold(self, is_held: bool) -> None:
        """Changes no job, and what is being done goes on."""
        with session(self.engine) as db:
            if is_held:
                jobs.hold(db, StageName.CRAWL, "for a while")
            else:
                assert jobs.let_go(db, StageName.CRAWL) == self.is_held
        self.is_held = is_held

    @rule(subject_ids=st.sets(_SUBJECTS))
    def withdraw(self, subject_ids: set[int]) -> None:
        queued = {s for s in subject_ids if s in self.model and self.model[s].state is JobState.QUEUED}
        assert jobs.withdraw(self.engine, self.ids(subject_ids)) == len(queued)
        for subject_id in queued:
            self.change(subject_id, state=JobState.TODO, due=self.model[subject_id].due)

    @rule(subject_ids=st.sets(_SUBJECTS))
    def cancel(self, subject_ids: set[int]) -> None:
        opened = {s for s in subject_ids if s in self.model and not self.model[s].ended}
        assert jobs.cancel(self.engine, self.ids(subject_ids)) == len(opened)
        for subject_id in opened:
            self.change(subject_id, state=JobState.CANCELLED)

    @rule()
    def retry_the_dead(self) -> None:
        dead = {s for s, job in self.model.items() if job.state is JobState.DEAD}
        assert jobs.retry(self.engine) == len(dead)
        for subject_id in dead:
            self.model[subject_id] = self.model[subject_id].reopened()

    # ------------------------------------------------------------ invariants

    @invariant()
    def i1_no_job_is_lost_and_each_is_what_the_model_says(self) -> None:
        rows = self.rows()
        found = {s: (row.state, row.attempt, row.fence) for s, row in rows.items()}
        assert found == {s: (job.state.value, job.attempt, job.fence) for s, job in self.model.items()}
        assert jobs.unfinished(self.engine) == sum(not job.ended for job in self.model.values())

    @invariant()
    def i2_each_opening_has_at_most_one_effect(self) -> None:
        with self.engine.connect() as connection:
            paths = connection.execute(text("SELECT path FROM export")).scalars().all()
        openings = [path.rsplit("/", 1)[0] for path in paths]
        assert len(openings) == len(set(openings))

    @invariant()
    def i3_to_i5_fences_grow_attempts_are_bounded_and_ends_are_final(self) -> None:
        for subject_id, job in self.model.items():
            before = self.seen.get(subject_id, Model())
            assert job.fence >= before.fence
            assert 0 <= job.attempt <= job.max_attempts
            assert not before.ended or job.state is before.state or job.n_openings > before.n_openings
        self.seen = dict(self.model)

    def teardown(self) -> None:
        """Whatever happened, all of it can still be brought to an end."""
        self.hold(is_held=False)
        for subject_id in self.model:
            self.write("not_before", subject_id)
            self.write("lease_until", subject_id)
        while claim := jobs.claim(self.engine, _OWNER, lease_s=1000):
            with session(self.engine) as db:
                jobs.succeed(db, claim)
        assert jobs.unfinished(self.engine) == 0


@pytest.fixture(params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = upgraded("sqlite://" if request.param == "sqlite" else catalog_url(request.param, request))
    yield made
    made.dispose()


def test_no_schedule_breaks_an_invariant(engine: Engine) -> None:
    class Machine(JobMachine):
        pass

    Machine.engine = engine
    n_schedules = _N_SCHEDULES if engine.dialect.name == "sqlite" else max(10, _N_SCHEDULES // 5)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=n_schedules, stateful_step_count=40, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
