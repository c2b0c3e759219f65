"""Environments on disk: each byte counted once, the least recently used go first, what is in use stays; rebuilds."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from db import jobs
from db.engine import session
from db.enums import SourceKind, StageName
from db.models import Environment, EnvironmentBuild, PullRequest, Repository, TaskInstance
from swefactory import environment_disk
from swefactory.artifacts import LocalArtifacts
from swefactory.errors import Rejected, Transient, UsageError
from swefactory.image_files import Pinned, image_file, load_pins, write_pinned
from swefactory.sandbox_protocols import EnvironmentSpec, SandboxSpec, StoredEnvironment
from swefactory.sandboxes.disk_budget import RECENT, evictable
from swefactory.sandboxes.kept_extensions import KeptExtensions
from swefactory.sandboxes.namespace import NamespaceBackend
from tests.sandbox_contract import LOCK, locked_environment

MIB = 2**20
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def backend(tmp_path: Path) -> NamespaceBackend:
    made = NamespaceBackend(tmp_path / "cache")
    if why := made.probe():
        pytest.skip(f"no namespace sandbox here: {why}")
    return made


@pytest.fixture
def specs(backend: NamespaceBackend) -> list[EnvironmentSpec]:
    """Three environments of the same packages, built; the first was not used for the longest."""
    base = locked_environment(backend)
    made = [replace(base, digest=f"sha256:{n}{uuid.uuid4().hex * 2}"[:71]) for n in range(3)]
    for n, spec in enumerate(made):
        backend.materialise(spec)
        last_used(backend, spec, LONG_AGO + timedelta(days=n))
    return made


def last_used(backend: NamespaceBackend, spec: EnvironmentSpec, when: datetime) -> None:
    path = Path(backend.materialise(spec).locator)
    os.utime(path.with_name(f".{path.name}.use"), (when.timestamp(), when.timestamp()))


def standing(backend: NamespaceBackend) -> list[str]:
    return [each.digest for each in backend.disk_use().environments]


def test_a_file_with_many_names_is_counted_once(backend: NamespaceBackend, specs: list[EnvironmentSpec]) -> None:
    use = backend.disk_use()
    folders = [Path(each.locator) for each in use.environments]
    cache = folders[0].parents[1]
    told = subprocess.run(
        ["du", "-s", "--block-size=1", "--total", *map(str, folders), str(cache / "uv"), str(cache / "resolver")],
        capture_output=True, text=True,
    ).stdout.splitlines()[-1]  # fmt: skip
    tops = sum(path.lstat().st_blocks * 512 for path in (*folders, cache / "uv", cache / "resolver") if path.exists())
    assert use.total_bytes == int(told.split()[0]) - tops  # du counts the folders themselves too
    assert all(each.shared_bytes > 0 for each in use.environments)
    assert sum(each.unique_bytes + each.shared_bytes for each in use.environments) > sum(
        each.unique_bytes for each in use.environments
    ) + max(each.shared_bytes for each in use.environments)


def test_what_an_environment_alone_holds_is_what_its_removal_frees(
    backend: NamespaceBackend, specs: list[EnvironmentSpec]
) -> None:
    before = backend.disk_use()
    (gone,) = [each for each in before.environments if each.digest == specs[0].digest]
    assert backend.evict(gone.digest)
    assert before.total_bytes - backend.disk_use().total_bytes == gone.unique_bytes
    assert not backend.evict(gone.digest)


def test_an_open_sandbox_keeps_its_environment(
    backend: NamespaceBackend, specs: list[EnvironmentSpec], tmp_path: Path
) -> None:
    (tmp_path / "checkout").mkdir()
    with backend.open(SandboxSpec(specs[0], tmp_path / "checkout")) as sandbox:
        assert {each.digest: each.is_in_use for each in backend.disk_use().environments}[specs[0].digest]
        assert not backend.evict(specs[0].digest)
        assert sandbox.run(["/opt/env/bin/python", "-c", "import iniconfig"], timeout_s=30).exit_code == 0
    assert backend.evict(specs[0].digest)


def test_the_least_recently_used_goes_first_and_the_recent_never() -> None:
    now = LONG_AGO + timedelta(days=30)

    def stored(name: str, ago: timedelta, *, is_in_use: bool = False) -> StoredEnvironment:
        return StoredEnvironment(name, name, MIB, 0, now - ago, is_in_use)

    kept = [stored("recent", RECENT / 2), stored("b", RECENT * 2), stored("a", RECENT * 9)]
    kept.append(stored("used", RECENT * 10, is_in_use=True))
    assert [each.digest for each in evictable(kept, now=now)] == ["a", "b"]


def test_a_build_makes_room_within_the_budget(backend: NamespaceBackend, specs: list[EnvironmentSpec]) -> None:
    use = backend.disk_use()
    fresh = replace(specs[0], digest=f"sha256:{uuid.uuid4().hex * 2}")
    # Room for the three and a byte: the fourth needs as much as one of them, shared files included.
    bounded = NamespaceBackend(Path(use.environments[0].locator).parents[1], disk_budget_bytes=use.total_bytes + 1)
    assert bounded.materialise(fresh).built
    left = standing(bounded)
    assert fresh.digest in left
    assert specs[0].digest not in left
    assert len(left) < 4


def test_a_budget_that_only_what_is_in_use_fills_puts_the_work_off(
    backend: NamespaceBackend, specs: list[EnvironmentSpec]
) -> None:
    for spec in specs:
        last_used(backend, spec, datetime.now(UTC))
    bounded = NamespaceBackend(Path(backend.materialise(specs[0]).locator).parents[1], disk_budget_bytes=1)
    with pytest.raises(Transient, match="SWEFACTORY_DISK_BUDGET"):
        bounded.materialise(replace(specs[0], digest=f"sha256:{uuid.uuid4().hex * 2}"))
    assert len(standing(backend)) == 3
    assert bounded.materialise(specs[1]).built is False


def test_packages_that_no_environment_holds_leave_the_cache_and_are_fetched_again(
    backend: NamespaceBackend, specs: list[EnvironmentSpec]
) -> None:
    assert backend.drop_caches() == 0
    for spec in specs:
        assert backend.evict(spec.digest)
    assert backend.drop_caches() > 0
    assert backend.materialise(specs[0]).built


def test_built_extension_modules_are_counted_and_go_with_the_caches(backend: NamespaceBackend, tmp_path: Path) -> None:
    kept, before = KeptExtensions(tmp_path / "cache"), backend.disk_use()
    kept.put("0a", b"\0" * MIB)
    after = backend.disk_use()
    assert MIB <= after.cache_bytes - before.cache_bytes == after.total_bytes - before.total_bytes < 2 * MIB
    assert backend.drop_caches() >= MIB
    assert kept.get("0a") is None
    assert backend.disk_use() == before


# ---------------------------------------------------------------- with the catalog


@pytest.fixture
def rows(catalog: Engine, specs: list[EnvironmentSpec], tmp_path: Path) -> Iterator[LocalArtifacts]:
    artifacts = LocalArtifacts(tmp_path / "artifacts")
    with session(catalog) as db:
        for spec in specs:
            ref = artifacts.put(spec.lock.encode(), "text/plain")
            row = Environment(
                digest=spec.digest, python_version=spec.python_version, lock_digest=ref.digest, resolved_as_of=LONG_AGO
            )
            db.add(row)
            db.flush()
            assert row.id is not None
            db.add(EnvironmentBuild(environment_id=row.id, sandbox="namespace", locator=""))
    return artifacts


def task_instance(db: Session, environment_id: int | None) -> int:
    repository = Repository(name="acme/calc", source=SourceKind.GIT_HISTORY)
    db.add(repository)
    db.flush()
    times = dict.fromkeys(("opened_at", "merged_at", "updated_at"), LONG_AGO)
    pull_request = PullRequest(repository_id=repository.id, number=7, **times)
    db.add(pull_request)
    db.flush()
    instance = TaskInstance(
        instance_id="acme__calc-7", repository_id=repository.id, pull_request_id=pull_request.id,
        environment_id=environment_id, base_commit="0" * 40, created_at=LONG_AGO,
    )  # fmt: skip
    db.add(instance)
    db.flush()
    assert instance.id is not None
    return instance.id


def test_the_catalog_is_told_what_stands_and_what_went(
    backend: NamespaceBackend, catalog: Engine, specs: list[EnvironmentSpec], rows: LocalArtifacts
) -> None:
    assert backend.evict(specs[1].digest)
    with session(catalog) as db:
        environment_disk.reconcile(db, backend.name, backend.disk_use())
    with session(catalog) as db:
        found = db.exec(select(Environment.digest, EnvironmentBuild).join(EnvironmentBuild)).all()
        builds = dict(found)
    assert builds[specs[0].digest].unique_bytes > 0
    assert builds[specs[0].digest].last_used_at == LONG_AGO
    assert builds[specs[1].digest].evicted_at is not None
    assert builds[specs[1].digest].unique_bytes == 0


def test_what_a_running_job_needs_is_not_pruned(
    backend: NamespaceBackend, catalog: Engine, specs: list[EnvironmentSpec], rows: LocalArtifacts
) -> None:
    with session(catalog) as db:
        environment_id = db.exec(select(Environment.id).where(Environment.digest == specs[0].digest)).one()
        instance_id = task_instance(db, environment_id)
        jobs.enqueue(db, StageName.VALIDATION, instance_id, max_attempts=1)
    assert jobs.claim(catalog, "somebody", lease_s=60) is not None
    with session(catalog) as db:
        needed = environment_disk.needed_now(db)
        assert environment_disk.users(db) == {specs[0].digest: 1}
    assert needed == {specs[0].digest}
    would = environment_disk.prune(backend, needed, unused_for=timedelta(days=1), dry_run=True)
    assert set(would.digests) == {specs[1].digest, specs[2].digest}
    assert len(standing(backend)) == 3
    assert environment_disk.prune(backend, needed, unused_for=timedelta(days=1)).digests == would.digests
    assert standing(backend) == [specs[0].digest]


def test_pruning_to_a_budget_stops_when_it_fits(backend: NamespaceBackend, specs: list[EnvironmentSpec]) -> None:
    total = backend.disk_use().total_bytes
    gone = environment_disk.prune(backend, set(), budget_bytes=total - 1)
    assert gone.digests == (specs[0].digest,)
    assert backend.disk_use().total_bytes == total - gone.n_bytes


def test_a_rebuild_from_the_stored_lock_gives_the_same_packages(
    backend: NamespaceBackend, catalog: Engine, specs: list[EnvironmentSpec], rows: LocalArtifacts
) -> None:
    with session(catalog) as db:
        spec = environment_disk.spec_of(db, rows, specs[0].digest[:20])
        with pytest.raises(UsageError, match="no environment begins"):
            environment_disk.spec_of(db, rows, "ffff")
    assert spec == specs[0]
    made = environment_disk.rebuild(backend, spec)
    assert made.differences == ()
    assert environment_disk.differences(backend, replace(spec, lock="pluggy==1.0\n" + LOCK)) == ("-pluggy==1.0",)
    assert environment_disk.differences(backend, replace(spec, lock="")) == ("+iniconfig==2.0.0",)


# ---------------------------------------------------------------- pins


def test_pins_are_the_same_text_for_the_same_facts_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "pins.toml"
    path.write_text(image_file("pins.toml").read_text())
    found = Pinned("sha256:01", "sha256:02", "1.2", {"2.7": "2.7.18"}, {"make": "4.3-4", "gcc": "4:12"})
    assert write_pinned(found, path=path, dry_run=True)
    assert path.read_text() == image_file("pins.toml").read_text()
    assert write_pinned(found, path=path)
    again = replace(found, packages={"gcc": "4:12", "make": "4.3-4"})
    assert not write_pinned(again, path=path)
    assert load_pins(path).pinned == again
    assert load_pins(path).base_image == load_pins().base_image


def test_a_system_package_that_is_here_is_no_obstacle(backend: NamespaceBackend) -> None:
    if not Path("/usr/bin/dpkg-query").exists():
        pytest.skip("no Debian")
    spec = replace(locked_environment(backend), system_packages=("bash", "libc6"))
    assert backend.materialise(spec).built
    with pytest.raises(Rejected, match="libnever-made-dev; install them"):
        backend.materialise(replace(spec, system_packages=("bash", "libnever-made-dev")))
