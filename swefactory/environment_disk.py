"""Environments on disk as the catalog knows them. One property: what a running job needs is never pruned.

The disk is the truth of what stands, the catalog of what it is for; `reconcile` writes the first into the second.
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from sqlmodel import Session, col, func, select

from db.enums import JobState, StageName
from db.models import Environment, EnvironmentBuild, Job, Rollout, TaskInstance
from swefactory.errors import InfrastructureError, UsageError
from swefactory.protocols import ArtifactStore
from swefactory.sandbox_protocols import DiskUse, EnvironmentSpec, KeepingBackend, SandboxSpec, StoredEnvironment
from swefactory.sandboxes.disk_budget import evict, evictable

_SERVES = (col(TaskInstance.environment_id), col(TaskInstance.build_environment_id))
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Pruned:
    """What went, or would: digests, and the bytes that only they held."""

    digests: tuple[str, ...]
    n_bytes: int


@dataclass(frozen=True)
class Rebuilt:
    """An environment made again from its stored lock; `differences` are packages that are not as the lock says."""

    digest: str
    locator: str
    duration_s: float
    differences: tuple[str, ...]


def reconcile(db: Session, sandbox: str, use: DiskUse, now: datetime | None = None) -> None:
    """Writes what stands on disk, and what does not any more, into environment_build."""
    now = now or datetime.now(UTC)
    stored = {each.digest: each for each in use.environments}
    builds = select(EnvironmentBuild, Environment.digest).join(Environment).where(EnvironmentBuild.sandbox == sandbox)
    for build, digest in db.exec(builds):
        found = stored.get(digest)
        if found is None:
            build.unique_bytes = build.shared_bytes = 0
            build.evicted_at = build.evicted_at or now
        else:
            build.unique_bytes, build.shared_bytes = found.unique_bytes, found.shared_bytes
            build.last_used_at, build.evicted_at = found.last_used_at, None
        db.add(build)


def users(db: Session) -> dict[str, int]:
    """How many task instances each environment serves, by its digest: with their tests, or to build their modules."""
    found: dict[str, int] = {}
    for serves in _SERVES:
        counted = select(Environment.digest, func.count()).join(TaskInstance, serves == col(Environment.id))
        for digest, n_instances in db.exec(counted.group_by(Environment.digest)):
            found[digest] = found.get(digest, 0) + n_instances
    return found


def needed_now(db: Session) -> set[str]:
    """Environments of the subjects that jobs are at work on."""
    doing = select(Job.subject_id).where(Job.state == JobState.DOING)
    rollouts = doing.where(col(Job.stage).in_([StageName.ROLLOUT, StageName.GRADE]))
    instances = doing.where(col(Job.stage).in_([StageName.ENVIRONMENT, StageName.VALIDATION, StageName.SCORE]))
    rolled = select(Rollout.task_instance_id).where(col(Rollout.id).in_(rollouts))
    found: set[str] = set()
    for serves in _SERVES:
        digests = select(Environment.digest).join(TaskInstance, serves == col(Environment.id))
        wanted = col(TaskInstance.id).in_(instances) | col(TaskInstance.id).in_(rolled)
        found |= set(db.exec(digests.where(wanted)))
    return found


def prune(
    backend: KeepingBackend,
    needed: set[str],
    *,
    budget_bytes: int | None = None,
    unused_for: timedelta = timedelta(0),
    dry_run: bool = False,
) -> Pruned:
    """Removes environments least recently used first: until all fits `budget_bytes`, or, with None, every one that was
    not used for so long."""
    use = backend.disk_use()
    since = datetime.now(UTC) - unused_for
    candidates = [
        each for each in evictable(use.environments) if each.digest not in needed and each.last_used_at <= since
    ]
    excess = use.total_bytes - budget_bytes if budget_bytes is not None else sum(e.unique_bytes for e in candidates) + 1
    if dry_run:
        gone = _first(candidates, excess)
    else:
        digests = set(evict(backend, candidates, excess))
        gone = [each for each in candidates if each.digest in digests]
    return Pruned(tuple(each.digest for each in gone), sum(each.unique_bytes for each in gone))


def _first(candidates: Sequence[StoredEnvironment], excess_bytes: int) -> list[StoredEnvironment]:
    gone: list[StoredEnvironment] = []
    for each in candidates:
        if excess_bytes <= 0:
            break
        gone.append(each)
        excess_bytes -= each.unique_bytes
    return gone


def spec_of(db: Session, artifacts: ArtifactStore, digest_start: str) -> EnvironmentSpec:
    """The environment whose digest starts so, from its stored lock. Raises UsageError when none or several do, and
    ArtifactError when the lock is gone."""
    wanted = digest_start.removeprefix("sha256:")
    found = db.exec(select(Environment).where(col(Environment.digest).startswith(f"sha256:{wanted}"))).all()
    if len(found) != 1 or not wanted:
        many = "several environments begin" if len(found) > 1 else "no environment begins"
        raise UsageError(f"{many} with {digest_start!r}; see: swefactory images list")
    lock = artifacts.get(found[0].lock_digest).decode()
    return EnvironmentSpec(found[0].digest, found[0].python_version, lock, tuple(found[0].system_packages))


def rebuild(backend: KeepingBackend, spec: EnvironmentSpec) -> Rebuilt:
    """Removes the environment, makes it again and compares its packages with its lock. Raises UsageError when it is in
    use, and what materialise raises."""
    standing = any(each.digest == spec.digest for each in backend.disk_use().environments)
    if standing and not backend.evict(spec.digest):
        raise UsageError(f"the environment {spec.digest} is in use; rebuild it when no job needs it")
    made = backend.materialise(spec)
    return Rebuilt(spec.digest, made.locator, made.duration_s, differences(backend, spec))


def differences(backend: KeepingBackend, spec: EnvironmentSpec) -> tuple[str, ...]:
    """What stands in the environment and not in its lock ("+name==version"), or the other way ("-…"); sorted."""
    argv = ["/usr/bin/find", "/opt/env/lib", "-maxdepth", "3", "-name", "*.dist-info", "-printf", r"%f\n"]
    with tempfile.TemporaryDirectory() as empty, backend.open(SandboxSpec(spec, Path(empty))) as sandbox:
        result = sandbox.run(argv, timeout_s=60, cwd="/")
    if result.exit_code != 0:
        raise InfrastructureError(f"cannot list the packages of {spec.digest}: {result.output.decode()[-500:]}")
    names = [line.removesuffix(".dist-info") for line in result.output.decode().split()]
    here = {_canonical(*name.split("-", 1)) for name in names}
    wanted = {_canonical(name, version) for name, version in _PIN.findall(spec.lock)}
    return tuple(sorted([f"+{each}" for each in here - wanted] + [f"-{each}" for each in wanted - here]))


def _canonical(name: str, version: str) -> str:
    """Versions are written in several ways: 1.0.post1 and 1.0-1 are one."""
    try:
        return f"{canonicalize_name(name)}=={Version(version)}"
    except InvalidVersion:
        return f"{canonicalize_name(name)}=={version}"
