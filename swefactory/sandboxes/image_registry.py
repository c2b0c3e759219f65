"""Shares environment images through a registry. One property: a pulled image is used only if it says it is the one.

An image is REGISTRY/swefactory/env:TAG there and swefactory/env:TAG here, TAG the first digits of the environment's
digest; the whole digest is its label. What a registry gives is trusted as far as the registry is. Where all hosts of a
cluster share one, each sends what it has built, and none builds what another has.
"""

from dataclasses import dataclass

from swefactory.errors import InfrastructureError
from swefactory.sandboxes.docker_engine import Engine, Image

ENVIRONMENT_LABEL = "swefactory.environment"
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class ImageRegistry:
    """The registry at `address`, as host:port/path; empty: none, and then nothing is pulled."""

    engine: Engine
    address: str = ""
    gets_builds: bool = False  # whether what is built here is sent there at once

    def there(self, name: str) -> str:
        """The registry's name of an image of ours."""
        return f"{self.address.rstrip('/')}/{name}"

    def is_from_there(self, image: Image) -> bool:
        """Whether it was pulled: it is not compared with what this machine would build then."""
        return bool(self.address) and any(tag.startswith(self.there("")) for tag in image.tags)

    def pulled(self, name: str, digest: str) -> Image | None:
        """Pulls the environment `digest`; None where there is no registry or it has no such image. Raises
        InfrastructureError when the registry holds another environment under the name."""
        if not self.address or self.engine.pull(self.there(name), _TIMEOUT_S):
            return None
        image = self.engine.image(self.there(name))
        if image is None or image.labels.get(ENVIRONMENT_LABEL) != digest:
            self.engine.remove_image(self.there(name))
            raise InfrastructureError(
                f"the image {self.there(name)} is not the environment {digest}; remove it from the registry"
            )
        repository, _, tag = name.rpartition(":")
        with self.engine.faults(f"name the image {name}"):
            self.engine.api.tag(self.there(name), repository, tag)
        return self.engine.image(name)

    def push(self, name: str) -> None:
        """Sends an image of ours. Raises InfrastructureError when it is not here or not taken."""
        image = self.engine.image(name)
        if image is None:
            raise InfrastructureError(f"the image {name} is not here; build it first: swefactory images rebuild")
        if why := self.engine.share(name, self.there(name), _TIMEOUT_S):
            raise InfrastructureError(f"the registry does not take {self.there(name)}: {why}")

    def said_of_build(self, name: str) -> str:
        """Sends what was just built, where that is wanted; the line about it for the build's log. A registry that does
        not take it costs the others a build, not this job its environment."""
        if not (self.address and self.gets_builds):
            return ""
        try:
            self.push(name)
        except InfrastructureError as error:
            return f"\n[not shared: {error}]\n"
        return f"\n[shared as {self.there(name)}]\n"
