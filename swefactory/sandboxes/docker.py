"""The docker sandbox: an image for each environment, a hardened container for each sandbox.

One property: only what carries our labels is ever touched. `swefactory=1` marks all of it, `swefactory.home` the
catalog's home it belongs to, so that two homes on one engine leave each other's containers alone.
"""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from swefactory.errors import InfrastructureError, SandboxUnavailable
from swefactory.image_files import ImagePins, load_pins
from swefactory.sandbox_protocols import DiskUse, EnvironmentSpec, Materialised, Sandbox, SandboxSpec, UvRun
from swefactory.sandboxes import docker_resolution
from swefactory.sandboxes.disk_budget import admit
from swefactory.sandboxes.docker_container import (
    JOB_LABEL,
    DockerSandbox,
    content_tar,
    create_parameters,
    host_config,
)
from swefactory.sandboxes.docker_engine import LABEL, Engine
from swefactory.sandboxes.docker_images import DockerImages, own_interpreters, remove_stale_contexts
from swefactory.sandboxes.docker_launched import LaunchedEngine, Launcher
from swefactory.sandboxes.docker_store import HOME_LABEL, DockerStore
from swefactory.sandboxes.image_registry import ImageRegistry
from swefactory.sandboxes.interpreters import Interpreter, find_interpreters
from swefactory.sandboxes.kept_answers import KeptAnswers
from swefactory.sandboxes.kept_extensions import KeptExtensions
from swefactory.sandboxes.use_locks import UseLocks
from swefactory.sandboxes.user_network import none_because, user_network


class DockerBackend:
    """Sandboxes of the engine at `docker_host` (empty: its usual place). Safe to share between threads."""

    name = "docker"

    def __init__(
        self,
        cache_dir: Path,
        *,
        docker_host: str = "",
        base_image: str = "",
        build_timeout_s: float = 1800,
        extra_interpreter_folders: Sequence[str] = (),
        pins: ImagePins | None = None,
        disk_budget_bytes: int = 0,
        registry: str = "",
        shares_builds: bool = False,
        launcher: Launcher | None = None,
        build_settings: Path | None = None,
    ) -> None:
        folder = cache_dir.resolve()
        self.engine = LaunchedEngine(launcher, folder / "docker") if launcher else Engine(docker_host)
        self.home = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        self._folder = folder / "docker"
        self._extra_folders = tuple(extra_interpreter_folders)
        self._lock = threading.Lock()
        self._interpreters: dict[str, Interpreter] | None = None
        self._base_image = base_image
        self._has_quota = True  # until the engine refuses one
        self.images = DockerImages(
            self.engine,
            pins or load_pins(),
            self._folder,
            base_image,
            build_timeout_s,
            self._found,
            {HOME_LABEL: self.home},
            ImageRegistry(self.engine, registry, shares_builds),
            build_settings,
        )
        self._disk_budget_bytes = disk_budget_bytes
        locks = UseLocks(self._folder / "used")
        self._kept = DockerStore(
            self.engine,
            self.home,
            self.images.registry,
            locks,
            KeptExtensions(folder),
            KeptAnswers(folder / "answers"),
            self.images.wheels_folder,
        )

    def probe(self) -> str | None:
        """None when the engine answers and has a base to start from, else why not and what to do."""
        try:
            with self.engine.faults("answer"):
                told = self.engine.client.version()
            if told.get("Os") != "linux":
                return f"this docker engine runs {told.get('Os')} containers; switch it to Linux containers"
            if not self._base_image:
                self.images.base()
        except InfrastructureError as error:
            return str(error)
        return None

    def no_network(self) -> str | None:
        """See SandboxBackend. The network is joined from here to the container's own, so the engine must be here."""
        if not self.engine.is_local:
            return "the docker engine is not on this machine"
        if os.geteuid() != 0:
            return "only root can join a network to a container's"
        return none_because()

    def pythons(self) -> Mapping[str, str]:
        """What can be copied into an image from this machine, and what stands as an image already."""
        if "{version}" in self._base_image:
            versions = self.images.pins.registry_versions
            return {version: self._base_image.format(version=version) for version in versions}
        here = {version: str(found.path) for version, found in self._found().items()}
        with contextlib.suppress(SandboxUnavailable):
            here = {**self.images.versions_here(), **here}
        return dict(sorted(here.items(), key=lambda item: [int(part) for part in item[0].split(".")]))

    def materialise(self, spec: EnvironmentSpec) -> Materialised:
        """See SandboxBackend. The locator is the image's name; its size leaves out what environments share."""
        with self._kept.locks.used(spec.digest):
            if not self.images.stands(spec):
                admit(self, self._disk_budget_bytes)
            return self.images.environment(spec)

    def disk_use(self) -> DiskUse:
        """See EnvironmentStore."""
        return self._kept.disk_use()

    def evict(self, digest: str) -> bool:
        """See EnvironmentStore."""
        return self._kept.evict(digest)

    def drop_caches(self) -> int:
        """See EnvironmentStore."""
        return self._kept.drop_caches()

    def run_uv(
        self,
        arguments: Sequence[str],
        *,
        files: Mapping[str, str],
        writes: str,
        python_version: str,
        timeout_s: float,
    ) -> UvRun:
        """See SandboxBackend."""
        image = self.images.python(python_version)[2]

        def run() -> UvRun:
            return docker_resolution.run_uv(
                self.images, arguments, files=files, writes=writes, python_version=python_version, timeout_s=timeout_s
            )

        return self._kept.answers.ask(arguments, files, image.id, run)

    def open(self, spec: SandboxSpec) -> AbstractContextManager[Sandbox]:
        """See SandboxBackend."""
        return self._open(spec)

    @contextlib.contextmanager
    def _open(self, spec: SandboxSpec) -> Iterator[Sandbox]:
        if spec.is_online and (why := self.no_network()):
            raise SandboxUnavailable(f"a sandbox cannot be given a network of its own: {why}")
        with self._kept.locks.used(spec.environment.digest):  # from then on its container keeps the image
            container_id = self._create(spec, self.materialise(spec.environment).locator)
        try:
            with self.engine.faults(f"start a sandbox for {spec.label or 'nobody'}"):
                with content_tar(spec) as content:
                    self.engine.api.put_archive(container_id, "/", content)
                started = time.time()
                self.engine.api.start(container_id)
                offset_s = 0.0 if self.engine.is_local else self._started_at(container_id) - started
            sandbox = DockerSandbox(self.engine, container_id, spec.limits, clock_offset_s=offset_s)
            with user_network(spec.is_online) as network, sandbox.watched():
                if network is not None:
                    network.attach(self._process_of(container_id), closed=True)
                yield sandbox
        finally:
            self._remove(container_id)

    def sweep(self, live: Callable[[str], bool]) -> int:
        """See SandboxBackend. Also removes what crashed builds left on this machine."""
        remove_stale_contexts(self._folder)
        wanted = [f"{LABEL}=1", JOB_LABEL, f"{HOME_LABEL}={self.home}"]
        with self.engine.faults("list its containers"):
            found = self.engine.api.containers(all=True, filters={"label": wanted})
        dead = [each["Id"] for each in found if (label := each["Labels"][JOB_LABEL]) and not live(label)]
        for container_id in dead:
            self._remove(container_id)
        return len(dead)

    def _process_of(self, container_id: str) -> int:
        """The container's first process, as this machine numbers it."""
        with self.engine.faults("inspect a sandbox"):
            pid = int(self.engine.api.inspect_container(container_id)["State"]["Pid"])
        group = Path(f"/proc/{pid}/cgroup")
        if not group.exists() or container_id not in group.read_text():
            raise InfrastructureError("the engine's containers are not processes of this machine: no network for them")
        return pid

    def _create(self, spec: SandboxSpec, image: str) -> str:
        """Bounds the disk by the engine where its storage can; else the sandbox's watchdog does alone."""
        import docker

        api = self.engine.api
        parameters = create_parameters(spec.label, image, self.home)
        with self.engine.faults(f"create a sandbox from {image}"):
            while True:
                bounds = host_config(spec.limits, storage_quota=self._has_quota, is_online=spec.is_online)
                settings = api.create_host_config(**bounds)
                try:
                    return str(api.create_container(**parameters, host_config=settings)["Id"])
                except docker.errors.APIError as error:
                    if not self._has_quota or "storage" not in str(error.explanation).lower():
                        raise
                    self._has_quota = False

    def _started_at(self, container_id: str) -> float:
        """By the engine's clock."""
        said = self.engine.api.inspect_container(container_id)["State"]["StartedAt"]
        return datetime.fromisoformat(said).timestamp()

    def _remove(self, container_id: str) -> None:
        import docker

        with self.engine.faults(f"remove the sandbox {container_id[:12]}"):
            try:
                self.engine.api.remove_container(container_id, force=True, v=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:  # two processes sweep at once: the other one is at it
                if "already in progress" not in str(error.explanation):
                    raise

    def _found(self) -> Mapping[str, Interpreter]:
        with self._lock:
            if self._interpreters is None:
                self._interpreters = own_interpreters(find_interpreters(self._extra_folders))
            return self._interpreters
