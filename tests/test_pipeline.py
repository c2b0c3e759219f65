"""The one code path from a job to its result: every way a stage can end, on a real catalog."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from db import jobs
from db.engine import session
from db.enums import AgentKind, JobState, RejectReason, StageName
from db.models import Job, Repository
from swefactory.artifacts import LocalArtifacts
from swefactory.checkouts import Checkouts
from swefactory.config import Settings
from swefactory.errors import InfrastructureError, Rejected, SandboxUnavailable, Transient, UsageError
from swefactory.pipeline import run_claimed
from swefactory.protocols import AgentSpec
from swefactory.stage import NextJob, Saved, Services, Stage
from swefactory.wiring import make_agent, make_sandboxes


@pytest.fixture
def services(settings: Settings, tmp_path: Path) -> Services:
    """Real parts that these stages do not use."""
    checkouts = Checkouts(settings.mirrors, settings.cache_dir)
    sandboxes = make_sandboxes(settings)
    return Services(
        settings,
        {},
        checkouts,
        sandboxes,
        LocalArtifacts(tmp_path / "artifacts"),
        lambda spec: make_agent(spec, settings),
    )


@pytest.fixture
def repository_id(catalog: Engine) -> int:
    with session(catalog) as db:
        row = Repository(name="acme/tool")
        db.add(row)
        db.flush()
        assert row.id is not None
        jobs.enqueue(db, StageName.CRAWL, row.id)
        return row.id


def describing(text: str) -> Callable[[Session, int, str | Rejected], Saved]:
    """A save that writes what it was handed into the repository's description."""

    def save(db: Session, subject_id: int, output: str | Rejected) -> Saved:
        row = db.get_one(Repository, subject_id)
        if isinstance(output, Rejected):
            row.description = f"rejected: {output.detail}"
            return Saved(rejected=output)
        row.description = text + output
        return Saved(next_jobs=(NextJob(StageName.CANDIDATE, 7),))

    return save


def run(catalog: Engine, services: Services, work: Callable[[Services, str], str]) -> JobState | None:
    """Claims the one job and runs it through a stage whose work is `work`."""
    stage = Stage(
        StageName.CRAWL, lambda db, subject_id: db.get_one(Repository, subject_id).name, work, describing("a ")
    )
    claim = jobs.claim(catalog, "me", lease_s=30)
    assert claim is not None
    return run_claimed(claim, catalog, services, {StageName.CRAWL: stage})


def job(catalog: Engine, stage: StageName = StageName.CRAWL) -> Job:
    with session(catalog) as db:
        return db.exec(select(Job).where(Job.stage == stage)).one()


def description(catalog: Engine, repository_id: int) -> str:
    with session(catalog) as db:
        return db.get_one(Repository, repository_id).description


def test_rows_the_jobs_end_and_the_next_job_are_saved_together(
    catalog: Engine, services: Services, repository_id: int
) -> None:
    assert run(catalog, services, lambda _, name: f"look at {name}") is JobState.SUCCEEDED
    assert job(catalog).state is JobState.SUCCEEDED
    assert description(catalog, repository_id) == "a look at acme/tool"
    assert (job(catalog, StageName.CANDIDATE).subject_id, job(catalog, StageName.CANDIDATE).state) == (7, JobState.TODO)


def raising(error: BaseException) -> Callable[[Services, str], str]:
    def work(services: Services, name: str) -> str:
        raise error

    return work


def test_a_verdict_is_saved_with_its_reason(catalog: Engine, services: Services, repository_id: int) -> None:
    state = run(catalog, services, raising(Rejected(RejectReason.REPOSITORY_NOT_FOUND, "acme/tool is gone")))
    assert state is JobState.REJECTED
    assert (job(catalog).reason, job(catalog).message) == (RejectReason.REPOSITORY_NOT_FOUND, "acme/tool is gone")
    assert description(catalog, repository_id) == "rejected: acme/tool is gone"


def test_later_gives_the_attempt_back(catalog: Engine, services: Services, repository_id: int) -> None:
    assert run(catalog, services, raising(Transient("GitHub asks to wait", 120))) is JobState.TODO
    assert (job(catalog).state, job(catalog).attempt, job(catalog).message) == (JobState.TODO, 0, "GitHub asks to wait")
    assert jobs.claim(catalog, "me", lease_s=30) is None, "it is not due for two minutes"


def test_our_own_fault_is_retried_and_keeps_its_message(
    catalog: Engine, services: Services, repository_id: int
) -> None:
    assert run(catalog, services, raising(InfrastructureError("the disk is full"))) is JobState.FAILED
    assert (job(catalog).attempt, job(catalog).message) == (1, "the disk is full")


def test_a_bug_keeps_its_traceback_and_ends_dead_not_in_a_loop(
    catalog: Engine, services: Services, repository_id: int
) -> None:
    with session(catalog) as db:
        db.exec(select(Job)).one().max_attempts = 1
    assert run(catalog, services, raising(ZeroDivisionError("oops"))) is JobState.DEAD
    assert "Traceback" in job(catalog).message
    assert "ZeroDivisionError: oops" in job(catalog).message


def test_a_save_that_fails_leaves_no_row_and_no_next_job(
    catalog: Engine, services: Services, repository_id: int
) -> None:
    def save(db: Session, subject_id: int, output: str | Rejected) -> Saved:
        describing("half ")(db, subject_id, output)
        raise InfrastructureError("between two rows")

    stage = Stage(StageName.CRAWL, lambda db, subject_id: "", lambda services, name: "done", save)
    claim = jobs.claim(catalog, "me", lease_s=30)
    assert claim is not None
    assert run_claimed(claim, catalog, services, {StageName.CRAWL: stage}) is JobState.FAILED
    assert description(catalog, repository_id) == ""


def test_a_zombies_result_is_discarded(catalog: Engine, services: Services, repository_id: int) -> None:
    def work(_: Services, name: str) -> str:
        with session(catalog) as db:  # meanwhile the lease ran out and another worker took the job over
            row = db.exec(select(Job)).one()
            row.fence += 1
            row.lease_owner = "another"
        return "zombie"

    run(catalog, services, work)
    assert description(catalog, repository_id) == ""
    assert (job(catalog).state, job(catalog).lease_owner) == (JobState.DOING, "another")


def test_ctrl_c_gives_the_job_back_at_once(catalog: Engine, services: Services, repository_id: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(catalog, services, raising(KeyboardInterrupt()))
    again = jobs.claim(catalog, "me", lease_s=30)
    assert again is not None
    assert again.attempt == 1, "the interrupted attempt is not counted"


@pytest.mark.parametrize("error", [UsageError("no token"), SandboxUnavailable("no namespaces")])
def test_what_somebody_must_mend_is_not_hidden_in_a_job(
    catalog: Engine, services: Services, repository_id: int, error: Exception
) -> None:
    with pytest.raises(type(error), match=str(error)):
        run(catalog, services, raising(error))


def test_the_work_sees_no_open_transaction(catalog: Engine, services: Services, repository_id: int) -> None:
    def work(_: Services, name: str) -> str:
        with session(catalog) as db:  # would wait for the lock if load's transaction were still open
            db.get_one(Repository, repository_id).n_stars = 5
        return "free"

    assert run(catalog, services, work) is JobState.SUCCEEDED


def test_an_agent_spec_of_the_oracle_needs_no_openhands(settings: Settings) -> None:
    assert make_agent(AgentSpec(kind=AgentKind.ORACLE, name="oracle"), settings) is not None
