"""What an administrator queues: repositories to crawl, rollouts to run. One property: queuing twice is queuing once."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func
from sqlmodel import Session, col, select

from db import jobs
from db.enums import ExitStatus, InstanceStatus, SourceKind, StageName, Tier
from db.models import AgentConfig, Campaign, Crawl, Repository, Rollout, TaskInstance, utc_now
from swefactory import agent_configs
from swefactory.errors import UsageError
from swefactory.protocols import AgentSpec
from swefactory.repository_names import is_name


@dataclass(frozen=True)
class Queued:
    """What queuing changed: `n_new` subjects that were not there, `n_jobs` jobs that became claimable."""

    n_new: int
    n_jobs: int


def add_repository(
    db: Session,
    name: str,
    *,
    source: SourceKind = SourceKind.GITHUB,
    clone_url: str = "",
    limit: int | None = None,
    numbers: Collection[int] = (),
    max_attempts: int = 3,
    priority: int = 0,
) -> Queued:
    """Puts `owner/name` under watch and queues its crawl by `source`; for one already there, a crawl of what is new.
    `numbers` are an archive's pull requests. Raises UsageError on a malformed name."""
    check_name(name)
    known = known_repository(db, name)
    row = known or Repository(name=name)
    row.clone_url = _absolute(clone_url) or row.clone_url
    if source is SourceKind.GIT_HISTORY and not row.clone_url:
        raise UsageError(f"{name}: mining git history needs a clone; add --clone PATH_OR_URL")
    db.add(row)
    db.flush()
    crawl = _crawl(db, row, source, limit, numbers)
    assert crawl.id is not None
    queued = jobs.enqueue(
        db, StageName.CRAWL, crawl.id,
        repository_id=row.id, priority=priority, max_attempts=max_attempts, again=True,
    )  # fmt: skip
    return Queued(n_new=0 if known else 1, n_jobs=int(queued))


def known_repository(db: Session, name: str) -> Repository | None:
    """The repository of this name, in whichever case it is written: GitHub's names differ in more than that."""
    exact = db.exec(select(Repository).where(Repository.name == name)).first()
    return exact or db.exec(select(Repository).where(func.lower(Repository.name) == name.lower())).first()


def _crawl(
    db: Session, repository: Repository, source: SourceKind, limit: int | None, numbers: Collection[int]
) -> Crawl:
    """The source's crawl of a repository, made or changed to what is wanted now."""
    assert repository.id is not None
    known = db.exec(select(Crawl).where(Crawl.repository_id == repository.id, Crawl.source == source)).first()
    row = known or Crawl(repository_id=repository.id, source=source)
    if limit != row.pull_request_limit and known:
        row.watermark_at = None  # another limit looks at other pull requests: start over, upserts make it cheap
    row.pull_request_limit = limit
    if numbers:
        row.numbers, row.position = sorted({*row.numbers, *numbers}), None
    db.add(row)
    db.flush()
    return row


def check_name(name: str) -> None:
    """Raises UsageError unless `name` looks like owner/name on GitHub."""
    if not is_name(name):
        raise UsageError(f"{name!r} is not a repository's name; write owner/name, for example pallets/click")


@dataclass(frozen=True)
class CampaignSpec:
    """A name under which rollouts share a budget: dollars, and seconds from the start of the first."""

    name: str
    max_cost_usd: float | None = None
    max_duration_s: float | None = None


def add_rollouts(
    db: Session,
    agent: AgentSpec,
    *,
    instance_ids: Sequence[str] = (),
    replicas: int = 1,
    max_attempts: int = 3,
    campaign: CampaignSpec | None = None,
) -> Queued:
    """Queues `replicas` rollouts of `agent` on the named task instances, or on every validated one, as part of
    `campaign`. Ones that were cancelled are queued again. Raises UsageError for an instance that is none."""
    instances = _validated(db, instance_ids)
    config, _ = agent_configs.add(db, agent, rename=True)
    campaign_id = _campaign(db, campaign).id if campaign else None
    n_new = n_jobs = 0
    for instance in instances:
        for replica in range(1, replicas + 1):
            rollout, is_new = _rollout(db, instance, config, replica)
            if is_new:
                assert rollout.id is not None
                options = {"repository_id": instance.repository_id, "max_attempts": max_attempts}
                rollout.campaign_id = campaign_id
                n_new += 1
                n_jobs += jobs.enqueue(db, StageName.ROLLOUT, rollout.id, again=True, **options)
    return Queued(n_new, n_jobs)


def _campaign(db: Session, spec: CampaignSpec) -> Campaign:
    """The campaign of this name, made or given the budget that is said now."""
    row = db.exec(select(Campaign).where(Campaign.name == spec.name)).first() or Campaign(name=spec.name)
    if spec.max_cost_usd is not None:
        row.max_cost_usd = spec.max_cost_usd
    if spec.max_duration_s is not None:
        row.max_duration_s = spec.max_duration_s
    db.add(row)
    db.flush()
    return row


def cancel_rollouts(db: Session, *, rollout_ids: Collection[int] = (), campaign: str = "") -> int:
    """Calls off rollouts that have not ended: one at work stops before its next call of the model, one that waits ends
    as soon as its turn comes. How many. Raises UsageError for an unknown campaign."""
    waiting = select(Rollout).where(col(Rollout.finished_at).is_(None), col(Rollout.cancel_requested_at).is_(None))
    if campaign:
        row = db.exec(select(Campaign).where(Campaign.name == campaign)).first()
        if row is None:
            raise UsageError(f"no campaign {campaign!r} in the catalog; see `swefactory query campaigns`")
        waiting = waiting.where(Rollout.campaign_id == row.id)
    else:
        waiting = waiting.where(col(Rollout.id).in_(rollout_ids))
    found = list(db.exec(waiting))
    for rollout in found:
        rollout.cancel_requested_at = utc_now()
        db.add(rollout)
    return len(found)


def revalidate(
    db: Session, instance_ids: Sequence[str] | None, *, tier: Tier | None = None, max_attempts: int = 3
) -> Queued:
    """Queues another validation of the named task instances, or (None) of every validated one; `tier` None leaves it to
    the settings. Raises UsageError for an unknown instance or one without an environment."""
    statement = select(TaskInstance).order_by(TaskInstance.instance_id)
    if instance_ids is None:
        statement = statement.where(TaskInstance.status == InstanceStatus.VALIDATED)
    else:
        statement = statement.where(col(TaskInstance.instance_id).in_(instance_ids))
    found = list(db.exec(statement))
    if missing := sorted(set(instance_ids or ()) - {instance.instance_id for instance in found}):
        raise UsageError(f"no task instance {missing[0]!r} in the catalog; see `swefactory instance list`")
    if homeless := [instance.instance_id for instance in found if instance.environment_id is None]:
        raise UsageError(f"{homeless[0]} has no environment to be validated in; nothing was queued")
    n_jobs = 0
    for instance in found:
        assert instance.id is not None
        instance.tier = tier
        db.add(instance)
        options = {"repository_id": instance.repository_id, "max_attempts": max_attempts}
        n_jobs += jobs.enqueue(db, StageName.VALIDATION, instance.id, again=True, **options)
    return Queued(n_new=0, n_jobs=n_jobs)


def _validated(db: Session, instance_ids: Sequence[str]) -> list[TaskInstance]:
    statement = select(TaskInstance).order_by(TaskInstance.instance_id)
    if not instance_ids:
        found = list(db.exec(statement.where(TaskInstance.status == InstanceStatus.VALIDATED)))
        if not found:
            raise UsageError("no task instance is validated yet; see `swefactory status`, then `swefactory run`")
        return found
    found = list(db.exec(statement.where(col(TaskInstance.instance_id).in_(instance_ids))))
    if missing := sorted(set(instance_ids) - {instance.instance_id for instance in found}):
        raise UsageError(f"no task instance {missing[0]!r} in the catalog; see `swefactory instance list`")
    for instance in found:
        if instance.status is not InstanceStatus.VALIDATED:
            raise UsageError(f"{instance.instance_id} is {instance.status.value}, not validated; no rollout was queued")
    return found


def _rollout(db: Session, instance: TaskInstance, config: AgentConfig, replica: int) -> tuple[Rollout, bool]:
    assert instance.id is not None
    assert config.id is not None
    row = Rollout(task_instance_id=instance.id, agent_config_id=config.id, replica=replica)
    same = select(Rollout).filter_by(task_instance_id=instance.id, agent_config_id=config.id, replica=replica)
    if known := db.exec(same).first():
        return known, _reopened(known)
    db.add(row)
    db.flush()
    return row, True


def _reopened(rollout: Rollout) -> bool:
    """A rollout that was cancelled may begin again; any other stays as it is."""
    if rollout.exit_status is not ExitStatus.CANCELLED:
        return False
    rollout.exit_status, rollout.exit_detail = None, ""
    rollout.finished_at, rollout.cancel_requested_at = None, None
    return True


def _absolute(clone_url: str) -> str:
    """A local path made absolute, so that a run from another folder finds it; a URL as it is."""
    if clone_url and "://" not in clone_url and Path(clone_url).exists():
        return str(Path(clone_url).resolve())
    return clone_url
