"""Validations of one environment follow each other in one worker, and their runs share nothing that one can write."""

from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from db import jobs
from db.engine import session
from db.enums import InstanceStatus, JobState, StageName
from db.models import Environment, Job, PullRequest, TaskInstance, utc_now
from swefactory.batches import beside
from swefactory.pipeline import run_batch
from swefactory.stage import Services
from tests.fake_sandbox import host_services
from tests.instance_rows import add_instance
from tests.test_stage_validation import BASE, FIXED, NEW_TEST, validate_once

MARKS = """
import os
def test_nobody_was_here_before():
    for place in (os.getcwd(), os.path.dirname(__file__), os.environ["PYTHONPATH"]):
        assert not os.path.exists(os.path.join(place, "mark"))
        open(os.path.join(place, "mark"), "w").close()
    os.remove("calc.py")
"""


@pytest.fixture
def waiting(catalog: Engine, tmp_path: Path) -> tuple[Services, int]:
    """Validations of acme__calc-7 (it is first; its job's id is handed over) and -9 in one environment, of -8 in
    another and of -10 in none, and a rollout for each but the first."""
    services = host_services(tmp_path / "home", test_timeout_s=60)
    first = add_instance(catalog, services, tmp_path, BASE, fixed=FIXED, tests={"tests/test_calc.py": NEW_TEST})
    with session(catalog) as db:
        here = db.get_one(TaskInstance, first)
        pulled = db.get_one(PullRequest, here.pull_request_id)
        lock = db.exec(select(Environment)).one().lock_digest
        elsewhere = Environment(digest="sha256:other", python_version="3.9", lock_digest=lock, resolved_as_of=utc_now())
        db.add(elsewhere)
        db.flush()
        for number, environment_id in ((8, elsewhere.id), (9, here.environment_id), (10, None)):
            pull_request = PullRequest(**{**pulled.model_dump(exclude={"id"}), "number": number})
            db.add(pull_request)
            db.flush()
            copy = TaskInstance(**here.model_dump(exclude={"id", "instance_id", "environment_id", "pull_request_id"}))
            copy.instance_id, copy.environment_id = f"acme__calc-{number}", environment_id
            copy.pull_request_id = pull_request.id or 0
            db.add(copy)
            db.flush()
            assert copy.id is not None
            jobs.enqueue(db, StageName.VALIDATION, copy.id)
            jobs.enqueue(db, StageName.ROLLOUT, copy.id)
        jobs.enqueue(db, StageName.VALIDATION, first, priority=1)
        db.flush()
        job = db.exec(select(Job).where(Job.stage == StageName.VALIDATION, Job.subject_id == first)).one()
        return services, job.id or 0


def test_a_worker_goes_on_with_the_same_environment(catalog: Engine, waiting: tuple[Services, int]) -> None:
    claim = jobs.claim(catalog, "worker:1", lease_s=60)
    assert claim is not None
    found = beside(catalog, claim)
    after = jobs.claim(catalog, "worker:1", lease_s=60, before=found)
    assert after is not None
    assert found == (after.job_id,)
    with session(catalog) as db:
        assert db.get_one(TaskInstance, after.subject_id).instance_id == "acme__calc-9"
        rollout = db.exec(select(Job).where(Job.stage == StageName.ROLLOUT)).first()
        assert rollout is not None
    other = jobs.Claim(rollout.id or 0, StageName.ROLLOUT, rollout.subject_id, 1, 3, 1)
    assert beside(catalog, other) == ()


def test_one_hint_of_the_broker_is_worth_all_that_waits_in_its_environment(
    catalog: Engine, waiting: tuple[Services, int]
) -> None:
    services, job_id = waiting
    done = list(run_batch(job_id, settings=services.settings, engine=catalog, owner="worker:1", services=services))
    assert [state for _, state in done] == [JobState.SUCCEEDED, JobState.SUCCEEDED]
    with session(catalog) as db:
        instances = {each.id: each.instance_id for each in db.exec(select(TaskInstance))}
        ended = {instances[job.subject_id]: job.state for job in db.exec(select(Job).where(Job.stage == "validation"))}
    assert ended == {
        "acme__calc-7": JobState.SUCCEEDED,
        "acme__calc-9": JobState.SUCCEEDED,
        "acme__calc-8": JobState.TODO,
        "acme__calc-10": JobState.TODO,
    }
    again = run_batch(job_id, settings=services.settings, engine=catalog, owner="worker:1", services=services)
    assert list(again) == [(job_id, None)]


def test_what_one_run_writes_or_removes_no_other_run_of_its_state_sees(catalog: Engine, tmp_path: Path) -> None:
    services = host_services(tmp_path / "home", test_timeout_s=60)
    tests = {"tests/test_calc.py": NEW_TEST + MARKS}
    instance_id = add_instance(catalog, services, tmp_path, BASE, fixed=FIXED, tests=tests)
    instance, _ = validate_once(catalog, services, instance_id)
    assert instance.status is InstanceStatus.VALIDATED, instance.reject_detail
    assert "tests/test_calc.py::test_nobody_was_here_before" in instance.pass_to_pass
