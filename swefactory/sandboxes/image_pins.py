"""Reads from the images themselves what they are made of, for images/pins.toml. One property: it changes nothing."""

import subprocess
from importlib.metadata import version

from swefactory.errors import InfrastructureError
from swefactory.image_files import ImagePins, Pinned
from swefactory.sandboxes.docker_images import DockerImages
from swefactory.sandboxes.interpreters import Interpreter

_QUERY = "${Package}\t${Version}\n"


def what_stands(images: DockerImages) -> Pinned:
    """Raises SandboxUnavailable where there is no base image."""
    name, _ = images.base()
    with images.engine.faults(f"look at {name}"):
        layers = images.engine.api.inspect_image(name)["RootFS"]["Layers"]
    found = sorted(images.interpreters().values(), key=lambda each: each.full_version)
    return Pinned(
        registry_digest=_registry_digest(images),
        root=layers[0],
        uv=version("uv"),
        pythons={each.version: _full(each) for each in found},
        packages=_packages(images, name),
    )


def registry_name(pins: ImagePins) -> str:
    """What a registry is asked for: the pinned digest where there is one, else the tag."""
    if not pins.pinned.registry_digest:
        return pins.registry_base_image
    return f"{pins.registry_base_image.rpartition(':')[0]}@{pins.pinned.registry_digest}"


def _registry_digest(images: DockerImages) -> str:
    """Of the image a registry gave; what was pinned before where none did."""
    if images.engine.image(images.pins.registry_base_image) is None:
        return images.pins.pinned.registry_digest
    told = images.engine.api.inspect_image(images.pins.registry_base_image).get("RepoDigests") or [""]
    return str(told[0]).rpartition("@")[2]


def _packages(images: DockerImages, name: str) -> dict[str, str]:
    """The base's own, by dpkg in a container without network."""
    argv = ["docker", *(["--host", images.engine.host] if images.engine.host else []), "run", "--rm", "--network=none"]
    argv += ["--label=swefactory=1", "--user=65534", name, "dpkg-query", "-W", "-f", _QUERY, *images.pins.base_packages]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise InfrastructureError(f"cannot ask {name} for its packages: {done.stderr.strip()[-500:]}")
    return dict(line.split("\t") for line in done.stdout.splitlines())


def _full(found: Interpreter) -> str:
    return ".".join(map(str, found.full_version))
