"""Where the images of an export are: pushed, on this engine, in the export, or to be rebuilt. One property: each row of
images.jsonl says which of these it is, and with what digest where there is an image.

    images.jsonl            {"instance_id", "image", "source", "digest", "environment_digest", "lock"}
    locks/<digest>.txt      the lock an environment is rebuilt from, with hashes
    oci/                    with `oci`: one OCI layout of all images, each layer once
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import batched

from sqlalchemy import Engine

from db.engine import session
from swefactory.errors import InfrastructureError, UsageError
from swefactory.exports.folder import ExportFolder
from swefactory.exports.instance_images import ImageSource, build, image_name
from swefactory.exports.oci import OciLayout
from swefactory.instance_runs import EvaluatedInstance, RunServices, load_instance
from swefactory.sandboxes.docker import DockerBackend

_PUSH_TIMEOUT_S = 1800
_BATCH = 50  # instances that are read at once


@dataclass
class Images:
    """Provides the images of one export. `docker` is asked only when images are wanted."""

    source: ImageSource
    services: RunServices
    docker: DockerBackend | None = None
    registry: str = ""
    _locks: set[str] = field(default_factory=set)
    _layout: OciLayout | None = None

    def __post_init__(self) -> None:
        if self.source is ImageSource.REGISTRY and not self.registry:
            raise UsageError("--images registry needs SWEFACTORY_IMAGE_REGISTRY, as host:port/path")

    @property
    def prefix(self) -> str:
        """What stands before the names of pushed images."""
        return self.registry if self.source is ImageSource.REGISTRY else ""

    def write(self, engine: Engine, folder: ExportFolder, ids: Iterable[int]) -> None:
        """images.jsonl of these task instances. No transaction is open while an image is made: that takes long."""
        with folder.lines("images.jsonl") as lines:
            for some in batched(ids, _BATCH):
                with session(engine, writing=False) as db:
                    instances = [load_instance(db, task_instance_id) for task_instance_id in some]
                for instance in instances:
                    lines.write(self._provided(folder, instance))
        if self._layout is not None:
            self._layout.finish(folder)

    def _provided(self, folder: ExportFolder, instance: EvaluatedInstance) -> Mapping[str, object]:
        """Makes the image be where it should; its line of images.jsonl. Raises Rejected, InfrastructureError."""
        lock = f"locks/{instance.environment_digest.removeprefix('sha256:')}.txt"
        if lock not in self._locks:
            folder.write(lock, self.services.artifacts.get(instance.lock_digest))
            self._locks.add(lock)
        return {
            "instance_id": instance.instance_id,
            "image": image_name(instance, self.prefix),
            "source": self.source.value,
            "digest": "" if self.source is ImageSource.REBUILD else self._made(folder, instance),
            "environment_digest": instance.environment_digest,
            "lock": lock,
        }

    def _made(self, folder: ExportFolder, instance: EvaluatedInstance) -> str:
        """The digest: of the registry's manifest, of the layout's, or the engine's id of the image."""
        if self.docker is None:
            raise UsageError(f"--images {self.source.value} needs a docker engine")
        build(self.services, self.docker, instance)
        name = image_name(instance)
        match self.source:
            case ImageSource.REGISTRY:
                return self._pushed(self.docker, name)
            case ImageSource.OCI:
                self._layout = self._layout or OciLayout(folder.path / "oci")
                with self.docker.engine.faults(f"save the image {name}"):
                    return self._layout.add(name, self.docker.engine.api.get_image(name))
            case _:
                image = self.docker.engine.image(name)
                return image.id if image else ""

    def _pushed(self, docker: DockerBackend, name: str) -> str:
        there = f"{self.registry.rstrip('/')}/{name}"
        repository, _, tag = there.rpartition(":")
        with docker.engine.faults(f"name the image {name}"):
            docker.engine.api.tag(name, repository, tag)
        if why := docker.engine.push(there, _PUSH_TIMEOUT_S):
            raise InfrastructureError(f"the registry does not take {there}: {why}")
        with docker.engine.faults(f"look at the image {there}"):
            found = docker.engine.api.inspect_image(there)["RepoDigests"]
        digests = [each.partition("@")[2] for each in found if each.startswith(f"{repository}@")]
        return digests[0] if digests else ""
