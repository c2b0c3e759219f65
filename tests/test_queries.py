"""Named queries: each answers the same, value for value, on SQLite and on PostgreSQL, and changes nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text
from sqlmodel import Session, SQLModel, select

from db import jobs, queries
from db.engine import CatalogError, session
from db.enums import (
    AgentKind,
    AttemptWay,
    Change,
    ExitStatus,
    FlagKind,
    InstanceStatus,
    RejectReason,
    SourceKind,
    Stability,
    StageName,
    Tier,
    ValidationVerdict,
)
from db.models import (
    AgentConfig,
    ApiQuota,
    Campaign,
    Crawl,
    Environment,
    Issue,
    PullRequest,
    PullRequestIssue,
    Repository,
    Rollout,
    RolloutAttempt,
    RolloutFlag,
    RolloutScore,
    RolloutStep,
    TaskInstance,
    TestVerdict,
    Validation,
    utc_now,
)
from tests.catalogs import BOTH, catalog_url, upgraded

EARLY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Rows = list[tuple[object, ...]]


def attempt(kind: str, name: str, worked: bool, n_requirements: int = 0) -> dict[str, object]:
    return {"kind": kind, "name": name, "worked": worked, "detail": "", "n_requirements": n_requirements}


ATTEMPTS = {
    1: [attempt("rung", "extras", True, 3), attempt("rung", "tox", True, 1), attempt("repair", "lift_date", True)],
    2: [attempt("rung", "extras", False), attempt("repair", "lift_date", True), attempt("repair", "lift_date", True)],
}


@pytest.fixture(params=BOTH)
def empty(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = upgraded(catalog_url(request.param, request))
    yield made
    made.dispose()


@pytest.fixture
def engine(empty: Engine) -> Engine:
    """Two repositories: of three pull requests of the first, one is validated and solved by one of three rollouts."""
    with session(empty) as db:
        click = added(db, Repository(name="pallets/click"))
        nothing = added(db, Repository(name="acme/empty"))
        for repository_id in (click, nothing):
            added(db, Crawl(repository_id=repository_id, source=SourceKind.GITHUB, n_examined=4, n_rest=1,
                            n_graphql_points=2))  # fmt: skip
        added(db, ApiQuota(credential="token:a", resource="core", n_left=7))
        issue = added(db, Issue(repository_id=click, number=9))
        environment = added(db, Environment(digest="sha256:e", python_version="3.9", lock_digest="sha256:l",
                                            resolved_as_of=utc_now()))  # fmt: skip
        first, second, _ = (pull_request(db, click, number) for number in (1, 2, 3))
        db.add(PullRequestIssue(pull_request_id=first, issue_id=issue, signals=["closer"], confidence=0.95))
        validated = instance(db, click, first, 1, environment, InstanceStatus.VALIDATED)
        instance(db, click, second, 2, None, InstanceStatus.REJECTED)
        config = added(db, AgentConfig(digest="sha256:a", name="oracle", kind=AgentKind.ORACLE, model="m"))
        campaign = added(db, Campaign(name="pilot", max_cost_usd=5.0, started_at=EARLY))
        for replica, (status, resolved) in enumerate(
            [(ExitStatus.SUBMITTED, True), (ExitStatus.SUBMITTED, False), (ExitStatus.INFRASTRUCTURE_ERROR, None)], 1
        ):
            rollout = added(db, Rollout(task_instance_id=validated, agent_config_id=config, replica=replica,
                                        exit_status=status, resolved=resolved, n_turns=replica, n_prompt_tokens=100,
                                        n_completion_tokens=10, cost_usd=0.25, finished_at=utc_now(),
                                        campaign_id=campaign))  # fmt: skip
        for number, way in ((1, AttemptWay.FIRST), (2, AttemptWay.RESUMED)):
            added(db, RolloutAttempt(rollout_id=rollout, number=number, way=way))
            added(db, RolloutStep(rollout_id=rollout, attempt=number, number=1, cost_usd=0.5, tools=["terminal"]))
        added(db, RolloutFlag(rollout_id=rollout, kind=FlagKind.TEST_EDIT, event_number=3, excerpt="rm tests/a.py"))
        added(db, RolloutScore(rollout_id=rollout, critic="judge:m", evidence_id=rollout, score=0.5))
    with session(empty) as db:
        for number, (change, after) in enumerate(
            [(Change.FAIL_TO_PASS, Stability.STABLE_PASS), (Change.UNSTABLE, Stability.ORDER_DEPENDENT)], 1
        ):
            row = Validation(
                task_instance_id=validated, environment_id=environment, number=number, sandbox="namespace", n_runs=3,
                verdict=list(ValidationVerdict)[number - 1], tier=Tier.BRONZE, started_at=EARLY, finished_at=EARLY,
                reason=None if number == 1 else RejectReason.FLAKY_FAIL_TO_PASS,
            )  # fmt: skip
            validation = added(db, row)
            for test_id in ("t::a", f"t::only in {number}"):
                added(db, TestVerdict(validation_id=validation, test_id=test_id, test_digest=test_id, change=change,
                                      before=Stability.STABLE_FAIL, after=after, n_runs=3, n_flips=number - 1,
                                      flip_rate_upper=0.5))  # fmt: skip
    return empty


def added(db: Session, row: SQLModel) -> int:
    db.add(row)
    db.flush()
    return int(row.id)  # type: ignore[attr-defined]


def pull_request(db: Session, repository_id: int, number: int) -> int:
    now = utc_now()
    return added(
        db, PullRequest(repository_id=repository_id, number=number, opened_at=now, merged_at=now, updated_at=now)
    )


def instance(
    db: Session, repository_id: int, pull_request_id: int, number: int, environment: int | None, status: InstanceStatus
) -> int:
    is_valid = status is InstanceStatus.VALIDATED
    row = TaskInstance(
        instance_id=f"pallets__click-{number}", repository_id=repository_id, pull_request_id=pull_request_id,
        environment_id=environment, status=status, base_commit="c0ffee", created_at=utc_now(),
        recipe={"attempts": ATTEMPTS[number]}, reject_reason=None if is_valid else RejectReason.BUILD_FAILED,
        validated_at=utc_now() if is_valid else None, fail_to_pass=["t::a", "t::b"] if is_valid else [],
    )  # fmt: skip
    return added(db, row)


def rows(engine: Engine, name: str, **parameters: object) -> Rows:
    return queries.run(engine, name, parameters)[1]


def test_rates_leave_out_what_says_nothing_of_the_agent(engine: Engine) -> None:
    assert rows(engine, "tries") == [("oracle", "m", "pallets__click-1", 2, 1)]
    assert rows(engine, "resolve_rates") == [("oracle", "m", 1, 2, 1, 1, 0.5, 0, 1, 0, 6, 0.75)]
    assert rows(engine, "difficulty") == [("pallets__click-1", 2, 1, "some")]
    assert rows(engine, "campaigns") == [("pilot", 5.0, 0.0, None, "2026-01-02 03:04:05", 3, 3, 0, 1)]
    assert [row[2:] for row in rows(engine, "rollout_attempts")] == [
        (1, "first", "", 1, 0.5),
        (2, "resumed", "", 1, 0.5),
    ]


def end_a_job(
    engine: Engine, stage: StageName, subject_id: int, reason: RejectReason | None, repository_id: int = 1
) -> None:
    with session(engine) as db:
        jobs.enqueue(db, stage, subject_id, repository_id=repository_id, max_attempts=1)
    claim = jobs.claim(engine, "worker:1", lease_s=60)
    assert claim is not None
    if reason is None:
        jobs.fail(engine, claim, "disk full")
        return
    with session(engine) as db:
        jobs.reject(db, claim, reason, "it is so")


def test_every_query_has_a_name_and_says_what_it_answers() -> None:
    found = {info.name: info for info in queries.names()}
    assert {"funnel", "rejections", "instances", "jobs", "rollouts"} <= found.keys()
    assert all(info.description.endswith(".") for info in found.values())
    assert found["funnel"].parameters == ("repository",)


def test_every_query_runs_on_an_empty_catalog(empty: Engine) -> None:
    for info in queries.names():
        columns, found = queries.run(empty, info.name)
        assert columns
        assert found == []


def test_every_query_gives_plain_values_on_both_databases(engine: Engine) -> None:
    end_a_job(engine, StageName.CANDIDATE, 3, RejectReason.DOCS_ONLY)
    end_a_job(engine, StageName.CRAWL, 1, None)
    with session(engine) as db:
        jobs.enqueue(db, StageName.CRAWL, 2)
    for info in queries.names():
        columns, found = queries.run(engine, info.name)
        assert found, info.name
        assert all(len(row) == len(columns) for row in found)
        assert {type(value) for row in found for value in row} <= {str, int, float, type(None)}, info.name


def test_the_funnel_counts_each_step_per_repository_and_in_total(engine: Engine) -> None:
    columns, found = queries.run(engine, "funnel")
    assert columns == [
        "repository", "pull_requests", "candidates", "environments", "validated", "rollouts", "resolved",
    ]  # fmt: skip
    assert found == [
        ("acme/empty", 0, 0, 0, 0, 0, 0),
        ("pallets/click", 3, 2, 1, 1, 3, 1),
        ("total", 3, 2, 1, 1, 3, 1),
    ]
    assert rows(engine, "funnel", repository="acme/empty")[-1] == ("total", 0, 0, 0, 0, 0, 0)


def test_crawls_say_what_each_pull_request_cost(engine: Engine) -> None:
    columns, found = queries.run(engine, "crawls", {"repository": "pallets/click"})
    [row] = [dict(zip(columns, row, strict=True)) for row in found]
    assert (row["pull_requests"], row["points_each"], row["calls_each"]) == (4, 0.5, 0.25)


def test_links_are_counted_by_their_signals(engine: Engine) -> None:
    assert rows(engine, "links") == [("pallets/click", '["closer"]', 1, 0.95)]


def test_rejections_name_stage_reason_and_repository(engine: Engine) -> None:
    end_a_job(engine, StageName.CANDIDATE, 2, RejectReason.DOCS_ONLY)
    end_a_job(engine, StageName.CANDIDATE, 3, RejectReason.DOCS_ONLY)
    end_a_job(engine, StageName.ENVIRONMENT, 2, RejectReason.BUILD_FAILED)
    end_a_job(engine, StageName.CRAWL, 2, RejectReason.REPOSITORY_NOT_FOUND, repository_id=2)
    end_a_job(engine, StageName.GRADE, 1, RejectReason.PATCH_DOES_NOT_APPLY)
    assert rows(engine, "rejections") == [
        ("candidate", "docs_only", 2, "pallets/click"),
        ("crawl", "repository_not_found", 1, "acme/empty"),
        ("environment", "build_failed", 1, "pallets/click"),
        ("grade", "patch_does_not_apply", 1, "pallets/click"),
    ]


def test_each_rejected_subject_is_named_with_its_reason(engine: Engine) -> None:
    end_a_job(engine, StageName.CRAWL, 2, RejectReason.REPOSITORY_NOT_FOUND, repository_id=2)
    end_a_job(engine, StageName.ENVIRONMENT, 2, RejectReason.BUILD_FAILED)
    end_a_job(engine, StageName.GRADE, 1, RejectReason.PATCH_DOES_NOT_APPLY)
    assert rows(engine, "rejected") == [
        ("acme/empty", None, "crawl", "repository_not_found", "it is so"),
        ("pallets/click", 1, "grade", "patch_does_not_apply", "it is so"),
        ("pallets/click", 2, "environment", "build_failed", "it is so"),
    ]


def test_instances_show_status_python_and_how_many_tests_judge_them(engine: Engine) -> None:
    valid, rejected = rows(engine, "instances")
    assert valid[:6] == ("pallets__click-1", "validated", None, "3.9", 2, 0)
    assert str(valid[6])[:2] == "20"
    assert len(str(valid[6])) == len("2026-01-01 00:00:00")
    assert rejected == ("pallets__click-2", "rejected", "build_failed", None, 0, 0, None)


def test_rungs_and_repairs_show_what_each_was_worth(engine: Engine) -> None:
    columns, found = queries.run(engine, "rungs")
    assert columns == ["kind", "name", "tried", "served", "environments", "validated", "n_requirements"]
    assert found == [
        ("rung", "extras", 2, 1, 1, 1, 3),
        ("rung", "tox", 1, 1, 1, 1, 1),
        ("repair", "lift_date", 2, 2, 1, 1, 0),
    ]
    assert rows(engine, "rungs", repository="acme/empty") == []


def test_jobs_are_counted_by_stage_and_state_in_the_order_of_the_stages(engine: Engine) -> None:
    with session(engine) as db:
        for stage in (StageName.GRADE, StageName.VALIDATION, StageName.CRAWL):
            jobs.enqueue(db, stage, 1)
        jobs.enqueue(db, StageName.CRAWL, 2)
    assert rows(engine, "jobs") == [("crawl", "todo", 2), ("validation", "todo", 1), ("grade", "todo", 1)]


def test_the_dead_and_the_waiting_keep_their_message(engine: Engine) -> None:
    end_a_job(engine, StageName.CRAWL, 1, None)
    with session(engine) as db:
        jobs.enqueue(db, StageName.CRAWL, 2)
    claim = jobs.claim(engine, "worker:1", lease_s=60)
    assert claim is not None
    jobs.postpone(engine, claim, "rate limit", 60)
    (dead,) = rows(engine, "dead")
    assert (dead[1], dead[2], dead[-1]) == ("crawl", 1, "disk full")
    (waiting,) = rows(engine, "waiting")
    assert (waiting[1], waiting[2], waiting[3], waiting[-1]) == ("crawl", 2, "todo", "rate limit")


def test_rollouts_say_who_how_it_ended_and_what_it_took(engine: Engine) -> None:
    assert [row[1:] for row in rows(engine, "rollouts")] == [
        ("oracle", 1, "submitted", "yes", 0, 1, 110, 0.25),
        ("oracle", 2, "submitted", "no", 0, 2, 110, 0.25),
        ("oracle", 3, "infrastructure_error", None, 0, 3, 110, 0.25),
    ]


def test_drift_is_what_one_validation_says_other_than_the_one_before(engine: Engine) -> None:
    assert [row[:-1] for row in rows(engine, "drift")] == [
        ("pallets__click-1", 2, "valid", "rejected", "flaky_fail_to_pass", 1, 1, 1)
    ]
    assert rows(engine, "drift", repository="acme/empty") == []


def test_certificates_are_listed_by_age_and_those_before_a_time(engine: Engine) -> None:
    found = [("pallets__click-1", 2, "bronze", 3, "2026-01-02 03:04:05")]
    assert rows(engine, "stale_certificates") == found
    assert rows(engine, "stale_certificates", before="2026-01-02 03:04:06") == found
    assert rows(engine, "stale_certificates", before="2026-01-02 03:04:05") == []


def test_unstable_tests_are_named_with_cause_and_bound(engine: Engine) -> None:
    assert [row[1:] for row in rows(engine, "unstable_tests")] == [
        (test_id, "unstable", "stable_fail", "order_dependent", 3, 1, 0.5) for test_id in ("t::a", "t::only in 2")
    ]


def test_a_suspicious_patch_counts_for_nothing_in_an_agents_rate(engine: Engine) -> None:
    with session(engine) as db:
        rollout = db.exec(select(Rollout).where(Rollout.replica == 1)).one()
        rollout.suspicious = ["constant_equality"]
        db.add(rollout)
    assert rows(engine, "agents") == [("oracle", "m", 1, 1, 0, 2, 0.25)]
    assert rows(engine, "funnel")[-1][-1] == 0
    assert [row[5] for row in rows(engine, "rollouts")] == [1, 0, 0]


def test_our_own_failures_count_for_nothing_in_an_agents_rate(engine: Engine) -> None:
    assert rows(engine, "agents") == [("oracle", "m", 2, 2, 1, 3, 0.5)]


def test_an_unknown_name_or_parameter_lists_those_that_are_there(empty: Engine) -> None:
    with pytest.raises(CatalogError, match="funnel, rejections"):
        queries.run(empty, "nonsense")
    with pytest.raises(CatalogError, match="it takes: repository"):
        queries.run(empty, "funnel", {"colour": "red"})


def test_a_parameter_is_a_value_and_never_sql(engine: Engine) -> None:
    assert rows(engine, "instances", repository="x'; DROP TABLE rollout; --") == []
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM rollout")).scalar_one() == 3
