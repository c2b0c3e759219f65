"""A repository of one commit and the catalog rows of a task instance on it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import Engine
from sqlmodel import Session

from db.engine import session
from db.enums import AgentKind
from db.models import AgentConfig, Environment, PullRequest, Repository, Rollout, TaskInstance, utc_now
from swefactory.checkouts import seal
from swefactory.protocols import ProjectLayout
from swefactory.sandbox_protocols import EnvironmentSpec
from swefactory.stage import Services
from tests.fake_sandbox import HERE, diff_of, write_tree


def add_instance(
    engine: Engine,
    services: Services,
    home: Path,
    base: Mapping[str, str],
    *,
    fixed: Mapping[str, str],
    tests: Mapping[str, str],
    environment: EnvironmentSpec = HERE,
    fail_to_pass: tuple[str, ...] = (),
    pass_to_pass: tuple[str, ...] = (),
) -> int:
    """The id of a task instance whose gold patch turns `base` into `base | fixed`, whose test_patch adds `tests`."""
    folder = write_tree(home / "upstream", base)
    commit = seal(folder)
    with session(engine) as db:
        repository = Repository(name="acme/calc", clone_url=str(folder))
        repository_id = _added(db, repository)
        now = utc_now()
        pull_request = PullRequest(
            repository_id=repository_id, number=7, base_commit=commit, opened_at=now, merged_at=now, updated_at=now
        )
        instance = TaskInstance(
            instance_id="acme__calc-7",
            repository_id=repository_id,
            pull_request_id=_added(db, pull_request),
            environment_id=_environment_id(db, services, environment),
            base_commit=commit,
            patch=diff_of(base, {**base, **fixed}),
            test_patch=diff_of(base, {**base, **tests}),
            test_files=sorted(path for path in tests if Path(path).name.startswith("test_")),
            project=asdict(ProjectLayout("calc", "1")),
            created_at=now,
            fail_to_pass=list(fail_to_pass),
            pass_to_pass=list(pass_to_pass),
        )
        return _added(db, instance)


def _environment_id(db: Session, services: Services, environment: EnvironmentSpec) -> int:
    row = Environment(
        digest=environment.digest,
        python_version=environment.python_version,
        lock_digest=services.artifacts.put(environment.lock.encode(), "text/plain").digest,
        recipe={"environment_variables": {"COLOUR": "red"}},
        resolved_as_of=utc_now(),
    )
    return _added(db, row)


def add_rollout(engine: Engine, task_instance_id: int, model_patch: str | None) -> int:
    """The id of a rollout that ended with this patch."""
    with session(engine) as db:
        config = AgentConfig(digest=f"sha256:{task_instance_id}", name="nop", kind=AgentKind.NOP)
        config_id = _added(db, config)
        return _added(
            db, Rollout(task_instance_id=task_instance_id, agent_config_id=config_id, model_patch=model_patch)
        )


def _added(db: Session, row: Repository | PullRequest | TaskInstance | Environment | AgentConfig | Rollout) -> int:
    """The id of a row that is added now."""
    db.add(row)
    db.flush()
    assert row.id is not None
    return row.id


def add_rollout_rows(db: Session, n_rollouts: int, n_instances: int = 1) -> list[Rollout]:
    """Rollouts that have not begun: `n_rollouts` replicas on each of `n_instances` instances that nothing can be run
    on."""
    now = utc_now()
    repository_id = _added(db, Repository(name="acme/calc"))
    config_id = _added(db, AgentConfig(digest="sha256:a", name="scripted", kind=AgentKind.OPENHANDS, model="m"))
    found = []
    for number in range(1, n_instances + 1):
        times = {"opened_at": now, "merged_at": now, "updated_at": now}
        pull_request_id = _added(db, PullRequest(repository_id=repository_id, number=number, **times))
        instance = TaskInstance(
            instance_id=f"acme__calc-{number}",
            repository_id=repository_id,
            pull_request_id=pull_request_id,
            base_commit="b",
            created_at=now,
        )
        instance_id = _added(db, instance)
        for replica in range(1, n_rollouts + 1):
            row = Rollout(task_instance_id=instance_id, agent_config_id=config_id, replica=replica)
            _added(db, row)
            found.append(row)
    return found
