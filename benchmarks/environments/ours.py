"""The product's ways: both sandboxes, cold, warm and reused. One property: nothing of the product is left out.

namespace cold      a home with nothing in it: no cache of uv, no environment, no tree
namespace next      in a home that keeps what the candidates before left, as in ordinary operation
namespace warm      the same, this candidate's packages in the cache, its environment removed and made again
namespace reused    the same, its environment standing: a second candidate with the same lock
docker cold, warm, reused    the like with images; uv's cache mounts are the benchmark's own, new for each candidate
"""

import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.environments.measuring import BUILD_S, INSIDE, TIMES, Environment, instance_of, measured, services_of
from benchmarks.environments.rows import Row
from swefactory.instance_runs import EnvironmentFacts
from swefactory.sandbox_protocols import CommandResult, KeepingBackend
from swefactory.sandboxes.build_faults import log_text
from swefactory.sandboxes.docker import DockerBackend
from swefactory.sandboxes.docker_engine import Build, Engine
from swefactory.sandboxes.namespace import NamespaceBackend
from swefactory.stage import Services
from swefactory.stages import environments
from swefactory.stages.environments import EnvironmentInput

MARK = "swefactory-benchmark"  # in the ids of cache mounts, and so in the descriptions of build records
LABEL = "swefactory.benchmark"


def made_by_the_stage(services: Services, subject: EnvironmentInput) -> Environment:
    """The environment stage's own work."""
    output = environments.work(services, subject)
    lock = services.artifacts.get(output.lock.digest).decode()
    python, digest = output.spec.python_version, output.spec.digest
    instance = replace(
        instance_of(subject, services, python=python, digest=digest, lock=lock),
        layout=output.recipe.layout,
        system_packages=output.spec.system_packages,
        environment_variables=output.recipe.environment_variables,
        test_command=output.recipe.test_command,
        build=_build_of(output),
    )
    return Environment(instance, output.materialised.unique_bytes, output.materialised.shared_bytes)


def _build_of(output: environments.EnvironmentOutput) -> EnvironmentFacts | None:
    """What builds the project's own extension modules."""
    if output.build is None:
        return None
    spec = output.build.environment.spec
    return EnvironmentFacts(spec.digest, spec.python_version, output.build.lock.digest, spec.system_packages)


def namespace_cold(folder: Path, subject: EnvironmentInput) -> Iterator[Row]:
    """In a home that is thrown away."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="cold-") as name:
        (home := Path(name)).chmod(0o755)
        services = _namespace(home, folder / "mirrors")
        yield measured(services, subject, "namespace cold", lambda: made_by_the_stage(services, subject))


def namespace_next(kept: Services, store: KeepingBackend, subject: EnvironmentInput) -> Iterator[Row]:
    """In the kept home, as the next candidate."""
    row = measured(kept, subject, "namespace next", lambda: made_by_the_stage(kept, subject))
    yield replace(row, store_bytes=store.disk_use().total_bytes)


def namespace_again(kept: Services, store: KeepingBackend, subject: EnvironmentInput) -> Iterator[Row]:
    """In the kept home once more: warm, reused. Where this candidate was not there yet, it comes first, untimed."""
    made = measured(kept, subject, "", lambda: made_by_the_stage(kept, subject))
    if made.digest:
        store.evict(made.digest)
    for way in ("namespace warm", "namespace reused"):
        yield measured(kept, subject, way, lambda: made_by_the_stage(kept, subject))


def _namespace(home: Path, mirrors: Path) -> Services:
    (home / "mirrors").symlink_to(mirrors)
    return services_of(NamespaceBackend(home / "cache", build_timeout_s=BUILD_S), home)


def kept_namespace(folder: Path) -> tuple[Services, NamespaceBackend]:
    """The home that is kept through the run, and where the mirrors are."""
    backend = NamespaceBackend(folder / "cache", build_timeout_s=BUILD_S)
    return services_of(backend, folder), backend


# ---------------------------------------------------------------- docker


class MarkedEngine(Engine):
    """An engine whose builds carry the benchmark's label, use cache mounts of its own and no layer of an earlier
    environment, and tell what CPU time they took."""

    def __init__(self, cache: str) -> None:
        super().__init__()
        self._cache = cache

    def build(self, build: Build, timeout_s: float) -> CommandResult:
        text = re.sub(r"id=swefactory-", f"id={self._cache}-", build.dockerfile.read_text())
        mark = f": {secrets.token_hex(6)} {MARK}"
        end = f'; code=$?; echo "{TIMES}"; times; exit $code'
        text = re.sub(r"^    (sh /.*)$", rf"    {mark}; \1{end}", text, flags=re.MULTILINE)
        with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
            file.write(text)
            file.flush()
            labels = {**build.labels, LABEL: "environments"}
            result = super().build(replace(build, dockerfile=Path(file.name), labels=labels), timeout_s)
        INSIDE.add_times(log_text(result))
        return result


class MarkedBackend(DockerBackend):
    """The docker sandbox on that engine; what its containers use is counted."""

    def __init__(self, cache_dir: Path, cache: str = MARK) -> None:
        super().__init__(cache_dir, build_timeout_s=BUILD_S)
        self.engine = MarkedEngine(cache)
        self.images = replace(self.images, engine=self.engine)

    def _remove(self, container_id: str) -> None:
        INSIDE.add_container(container_id)
        super()._remove(container_id)


def docker(folder: Path, subject: EnvironmentInput) -> Iterator[Row]:
    """Cold, warm, reused; what was made is removed."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="docker-") as name:
        home = Path(name)
        home.chmod(0o755)
        (home / "mirrors").symlink_to(folder / "mirrors")
        backend = MarkedBackend(home / "cache", f"{MARK}-{secrets.token_hex(6)}")
        services = services_of(backend, home)
        digest = ""
        for way in ("docker cold", "docker warm", "docker reused"):
            row = measured(services, subject, way, lambda: made_by_the_stage(services, subject))
            digest = row.digest or digest
            if way == "docker cold" and digest:
                backend.evict(digest)
            yield row
        if digest:
            backend.evict(digest)
        shutil.rmtree(home / "cache", ignore_errors=True)


def remove_build_records() -> None:
    """Removes the engine's records of builds that carry the benchmark's mark, its cache mounts among them."""
    told = subprocess.run(["docker", "buildx", "du", "--verbose"], capture_output=True, text=True, check=True).stdout
    for record in re.split(r"\n\s*\n", told):
        found = re.search(r"^ID:\s*(\S+)", record, re.MULTILINE)
        if found and MARK in record:
            argv = ["docker", "builder", "prune", "--force", "--all", "--filter", f"id={found[1]}"]
            subprocess.run(argv, capture_output=True, check=False)  # one that others stand on stays
