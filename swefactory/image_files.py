"""Finds the files of images/ and reads its pins. One property: the same files from a checkout and from a wheel.

A wheel carries them as swefactory/_images; a checkout (or an editable install) has them beside the package.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from swefactory.errors import UsageError


@dataclass(frozen=True)
class ImagePins:
    """images/pins.toml."""

    base_image: str
    suite: str
    registry_base_image: str
    base_packages: tuple[str, ...]
    python_image: str
    python_prefix: str
    registry_versions: tuple[str, ...]
    environment_image: str


def images_folder() -> Path:
    """The folder; raises UsageError where neither place has it."""
    package = Path(__file__).parent
    for folder in (package / "_images", package.parent / "images"):
        if (folder / "pins.toml").is_file():
            return folder
    raise UsageError(f"the folder images/ is neither in {package} nor beside it; install swefactory again")


def image_file(name: str) -> Path:
    """One file of images/; raises UsageError when it is missing."""
    path = images_folder() / name
    if not path.is_file():
        raise UsageError(f"the file {path} is missing; install swefactory again")
    return path


def load_pins() -> ImagePins:
    """Read anew each time; raises UsageError when the file is not what it should be."""
    path = image_file("pins.toml")
    try:
        tables = tomllib.loads(path.read_text())
        base, python, environment = tables["base"], tables["python"], tables["environment"]
        return ImagePins(
            base_image=base["image"],
            suite=base["suite"],
            registry_base_image=base["registry_image"],
            base_packages=tuple(base["packages"]),
            python_image=python["image"],
            python_prefix=python["prefix"],
            registry_versions=tuple(python["registry_versions"]),
            environment_image=environment["image"],
        )
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be used: {error!r}; compare it with the one that was delivered") from error
