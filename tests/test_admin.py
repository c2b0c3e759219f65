"""Queuing repositories and rollouts: twice is once, and what cannot be is refused whole."""

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from db import jobs
from db.engine import session
from db.enums import AgentKind, ExitStatus, InstanceStatus, JobState, SourceKind, StageName, Tier
from db.models import Campaign, Crawl, Environment, Job, PullRequest, Repository, Rollout, TaskInstance, utc_now
from swefactory import admin, agent_configs
from swefactory.cli.instance_choice import chosen_instances
from swefactory.errors import UsageError
from swefactory.protocols import AgentSpec

NOP = AgentSpec(kind=AgentKind.NOP, name="nop")


@pytest.fixture
def two_instances(catalog: Engine) -> Engine:
    """acme__tool-1 is validated, acme__tool-2 is not."""
    now = utc_now()
    with session(catalog) as db:
        repository = Repository(name="acme/tool")
        db.add(repository)
        db.flush()
        for number, status in ((1, InstanceStatus.VALIDATED), (2, InstanceStatus.CANDIDATE)):
            times = {"opened_at": now, "merged_at": now, "updated_at": now}
            pull_request = PullRequest(repository_id=repository.id or 0, number=number, **times)
            db.add(pull_request)
            db.flush()
            db.add(
                TaskInstance(
                    instance_id=f"acme__tool-{number}", repository_id=repository.id or 0, status=status,
                    pull_request_id=pull_request.id or 0, base_commit="b", created_at=now,
                )
            )  # fmt: skip
    return catalog


def test_a_repository_queued_twice_is_one_row_and_one_job(catalog: Engine) -> None:
    with session(catalog) as db:
        assert admin.add_repository(db, "acme/tool") == admin.Queued(n_new=1, n_jobs=1)
    with session(catalog) as db:
        assert admin.add_repository(db, "acme/tool") == admin.Queued(n_new=0, n_jobs=0)
        assert len(db.exec(select(Repository)).all()) == 1
        assert [(job.stage, job.state) for job in db.exec(select(Job))] == [(StageName.CRAWL, JobState.TODO)]


def test_another_limit_starts_the_crawl_over(catalog: Engine) -> None:
    with session(catalog) as db:
        admin.add_repository(db, "acme/tool", limit=5)
        db.exec(select(Crawl)).one().watermark_at = utc_now()
    with session(catalog) as db:
        admin.add_repository(db, "acme/tool", limit=50)
        assert db.exec(select(Crawl)).one().watermark_at is None


def test_each_source_crawls_a_repository_by_itself(catalog: Engine) -> None:
    with session(catalog) as db:
        admin.add_repository(db, "acme/tool")
        assert admin.add_repository(
            db, "acme/tool", source=SourceKind.GIT_HISTORY, clone_url="https://example.org/tool.git"
        ) == admin.Queued(n_new=0, n_jobs=1)
        admin.add_repository(db, "acme/tool", source=SourceKind.GH_ARCHIVE, numbers=[7, 3])
        admin.add_repository(db, "acme/tool", source=SourceKind.GH_ARCHIVE, numbers=[3, 5])
    with session(catalog) as db:
        assert len(db.exec(select(Repository)).all()) == 1
        assert [(row.source.value, row.numbers) for row in db.exec(select(Crawl).order_by(Crawl.source))] == [
            ("gh_archive", [3, 5, 7]),
            ("git_history", []),
            ("github", []),
        ]


def test_git_history_without_a_clone_is_refused(catalog: Engine) -> None:
    with session(catalog) as db, pytest.raises(UsageError, match="--clone"):
        admin.add_repository(db, "acme/tool", source=SourceKind.GIT_HISTORY)


def test_rollouts_go_to_validated_instances_only_and_once(two_instances: Engine) -> None:
    for expected in (2, 0):
        with session(two_instances) as db:
            assert admin.add_rollouts(db, NOP, replicas=2) == admin.Queued(expected, expected)
    with session(two_instances) as db:
        assert sorted(rollout.replica for rollout in db.exec(select(Rollout))) == [1, 2]


@pytest.mark.parametrize(("name", "says"), [("acme__tool-2", "not validated"), ("acme__tool-9", "no task instance")])
def test_an_instance_that_cannot_be_rolled_out_on_queues_nothing(two_instances: Engine, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says), session(two_instances) as db:
        admin.add_rollouts(db, NOP, instance_ids=["acme__tool-1", name])
    with session(two_instances) as db:
        assert not db.exec(select(Rollout)).all()


def test_an_agents_digest_is_of_what_it_does_not_of_its_name() -> None:
    assert agent_configs.agent_digest(NOP) == agent_configs.agent_digest(AgentSpec(kind=AgentKind.NOP, name="idler"))
    spec = AgentSpec(kind=AgentKind.OPENHANDS, name="a", model="m")
    assert agent_configs.agent_digest(spec) != agent_configs.agent_digest(
        AgentSpec(kind=AgentKind.OPENHANDS, name="a", model="m", max_turns=5)
    )


def test_a_cancelled_rollout_is_queued_again_with_its_campaigns_new_budget(two_instances: Engine) -> None:
    with session(two_instances) as db:
        campaign = admin.CampaignSpec("pilot", max_cost_usd=1.0)
        assert admin.add_rollouts(db, NOP, replicas=2, campaign=campaign).n_new == 2
        assert admin.cancel_rollouts(db, campaign="pilot") == 2
        assert admin.cancel_rollouts(db, campaign="pilot") == 0
        with pytest.raises(UsageError, match="no campaign 'other'"):
            admin.cancel_rollouts(db, campaign="other")
    claim = jobs.claim(two_instances, "worker:1", lease_s=60)
    assert claim is not None
    with session(two_instances) as db:
        rollout = db.get_one(Rollout, claim.subject_id)
        rollout.exit_status, rollout.finished_at = ExitStatus.CANCELLED, utc_now()
        jobs.succeed(db, claim)
    with session(two_instances) as db:
        again = admin.add_rollouts(db, NOP, replicas=2, campaign=admin.CampaignSpec("pilot", max_cost_usd=9.0))
        assert again == admin.Queued(1, 1)
        rollout = db.get_one(Rollout, claim.subject_id)
        assert (rollout.exit_status, rollout.finished_at, rollout.cancel_requested_at) == (None, None, None)
        assert [(row.name, row.max_cost_usd) for row in db.exec(select(Campaign))] == [("pilot", 9.0)]


def test_instances_are_meant_by_id_by_pattern_and_by_query(two_instances: Engine) -> None:
    with session(two_instances, writing=False) as db:
        assert chosen_instances(two_instances, db, []) == []
        assert chosen_instances(two_instances, db, ["acme__tool-2"]) == ["acme__tool-2"]
        assert chosen_instances(two_instances, db, ["acme__*", "instances"]) == ["acme__tool-1"]  # the validated one
        for wanted, says in (("other__*", "none of the 1"), ("funnel", "no column instance_id")):
            with pytest.raises(UsageError, match=says):
                chosen_instances(two_instances, db, [wanted])


def test_revalidation_is_queued_again_with_its_tier(two_instances: Engine) -> None:
    with session(two_instances) as db:
        environment = Environment(digest="sha256:e", python_version="3.12", lock_digest="l", resolved_as_of=utc_now())
        db.add(environment)
        db.flush()
        for instance in db.exec(select(TaskInstance)):
            instance.environment_id = environment.id
            db.add(instance)
    with session(two_instances) as db:
        assert admin.revalidate(db, None, tier=Tier.GOLD) == admin.Queued(n_new=0, n_jobs=1)  # the validated one alone
        assert admin.revalidate(db, ["acme__tool-1"], tier=Tier.SILVER).n_jobs == 0  # it waits already
    with session(two_instances) as db:
        tiers = {row.instance_id: row.tier for row in db.exec(select(TaskInstance))}
        assert tiers == {"acme__tool-1": Tier.SILVER, "acme__tool-2": None}
        assert [job.stage for job in db.exec(select(Job))] == [StageName.VALIDATION]


@pytest.mark.parametrize(("name", "said"), [("acme__tool-9", "no task instance"), ("acme__tool-1", "no environment")])
def test_what_cannot_be_revalidated_is_refused(two_instances: Engine, name: str, said: str) -> None:
    with session(two_instances) as db, pytest.raises(UsageError, match=said):
        admin.revalidate(db, [name])
