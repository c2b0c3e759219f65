"""The environments of the docker sandbox on disk. One property: only images with our labels, of our home, ever go.

Sizes are the engine's own: an image's layers that no other image has are its unique bytes.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swefactory.sandbox_protocols import DiskUse, StoredEnvironment
from swefactory.sandboxes.docker_engine import LABEL, Engine, Image
from swefactory.sandboxes.image_registry import ENVIRONMENT_LABEL, ImageRegistry
from swefactory.sandboxes.kept_answers import KeptAnswers
from swefactory.sandboxes.kept_extensions import KeptExtensions
from swefactory.sandboxes.kept_wheels import KeptWheels
from swefactory.sandboxes.use_locks import UseLocks

HOME_LABEL = "swefactory.home"


@dataclass(frozen=True)
class DockerStore:
    """Environment images of `home` on one engine."""

    engine: Engine
    home: str
    registry: ImageRegistry
    locks: UseLocks
    extensions: KeptExtensions
    answers: KeptAnswers
    wheels_folder: Path

    def disk_use(self) -> DiskUse:
        """See EnvironmentStore. Layers that several images share are counted once, as their base."""
        told = self.engine.usage()
        ours = [each for each in told["Images"] if (each.get("Labels") or {}).get(LABEL) == "1"]
        mine = [each for each in ours if self._is_mine(each)]
        caches = sum(int(each["Size"]) for each in told.get("BuildCache") or () if not each.get("Shared"))
        caches += self.extensions.n_bytes() + self.answers.n_bytes() + sum(kept.n_bytes() for kept in self._wheels())
        stored = tuple(sorted((self._stored(each) for each in mine), key=lambda each: each.digest))
        base = self._below(ours, {each["Id"]: each for each in mine})
        return DiskUse(stored, caches, base, sum(each.unique_bytes for each in stored) + caches + base)

    def _below(self, ours: list[dict[str, Any]], mine: dict[str, Any]) -> int:
        """Bytes of the layers that environments stand on, each once: of images that are the start of others, and of
        what environments alone have in common, their system packages."""
        layers = {each["Id"]: self._layers(each["Id"]) for each in ours}
        total, common = 0, dict[str, int]()
        for each in ours:
            own = layers[each["Id"]]
            starts = [
                other for other in ours if layers[other["Id"]] == own[: len(layers[other["Id"]])] and other != each
            ]
            parent = max(starts, key=lambda other: len(layers[other["Id"]]), default=None)
            added = int(each["Size"]) - (int(parent["Size"]) if parent else 0)
            if each["Id"] not in mine:
                total += added
            elif shared := added - (int(each["Size"]) - max(0, int(each["SharedSize"]))):
                common[own[len(layers[parent["Id"]]) if parent else 0]] = max(0, shared)
        return total + sum(common.values())

    def _layers(self, image_id: str) -> list[str]:
        with self.engine.faults(f"look at the image {image_id}"):
            found: list[str] = self.engine.api.inspect_image(image_id)["RootFS"].get("Layers") or []
        return found

    def evict(self, digest: str) -> bool:
        """See EnvironmentStore. A container of the image keeps it, whoever runs it."""
        import docker

        with self.locks.unused(digest) as is_free:
            if not is_free:
                return False
            label = f"{ENVIRONMENT_LABEL}={digest}"
            with self.engine.faults(f"remove the image of {digest}"):
                labelled = self.engine.api.images(filters={"label": [f"{LABEL}=1", label]})
                found = [each for each in labelled if self._is_mine(each)]
                try:
                    for name in [name for each in found for name in each["RepoTags"] or [each["Id"]]]:
                        self.engine.api.remove_image(name)
                except docker.errors.APIError as error:
                    if error.status_code != 409:
                        raise
                    return False
        return bool(found)

    def drop_caches(self) -> int:
        """See EnvironmentStore. Built extension modules and wheels, and what the resolver said. The engine's build
        cache is not ours alone, and it bounds it by itself."""
        return self.extensions.drop() + self.answers.drop() + sum(kept.drop() for kept in self._wheels())

    def _wheels(self) -> list[KeptWheels]:
        return [KeptWheels(folder) for folder in self.wheels_folder.glob("*")]

    def _is_mine(self, image: dict[str, Any]) -> bool:
        """Built for this home, or pulled."""
        labels, tags = image["Labels"], tuple(image.get("RepoTags") or ())
        ours = labels.get(HOME_LABEL) == self.home or self.registry.is_from_there(Image(image["Id"], labels, 0, tags))
        return ENVIRONMENT_LABEL in labels and ours

    def _stored(self, image: dict[str, Any]) -> StoredEnvironment:
        digest = image["Labels"][ENVIRONMENT_LABEL]
        shared = max(0, int(image["SharedSize"]))
        return StoredEnvironment(
            digest=digest,
            locator=next(iter(image.get("RepoTags") or ()), image["Id"]),
            unique_bytes=int(image["Size"]) - shared,
            shared_bytes=shared,
            last_used_at=self.locks.last_used_at(digest, datetime.fromtimestamp(image["Created"], UTC)),
            is_in_use=int(image.get("Containers") or 0) > 0 or self.locks.is_used(digest),
        )
