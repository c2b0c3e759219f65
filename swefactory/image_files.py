"""Finds the files of images/ and reads its pins. One property: the same files from a checkout and from a wheel.

A wheel carries them as swefactory/_images; a checkout (or an editable install) has them beside the package.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from swefactory.errors import UsageError

_PINNED_MARK = "# ---- written by `swefactory images pin`; what is below is replaced by it"


@dataclass(frozen=True)
class Pinned:
    """What the images of one machine were found to be made of. `registry_digest` is what a registry is asked for."""

    registry_digest: str = ""  # sha256:… of the root file system's image, where a registry gave it
    root: str = ""  # sha256:… of its one layer, wherever it came from
    uv: str = ""
    pythons: Mapping[str, str] = field(default_factory=dict)  # "3.12" -> "3.12.1"
    packages: Mapping[str, str] = field(default_factory=dict)  # Debian's, of the base

    def rows(self) -> Iterator[tuple[str, str]]:
        """(what, pinned to), in the order of the file."""
        yield from (("registry_digest", self.registry_digest), ("root", self.root), ("uv", self.uv))
        yield from ((f"python {name}", value) for name, value in self.pythons.items())
        yield from (sorted((f"package {name}", value) for name, value in self.packages.items()))


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
    pinned: Pinned = field(default_factory=Pinned)


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


@cache
def image_text(name: str) -> str:
    """The text of one file of images/, read once a process: exports ask for it with every row."""
    return image_file(name).read_text(encoding="utf-8")


def load_pins(path: Path | None = None) -> ImagePins:
    """images/pins.toml, or `path`. Read anew each time; raises UsageError when the file is not what it should be."""
    path = path or image_file("pins.toml")
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
            pinned=Pinned(**tables.get("pinned", {})),
        )
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be used: {error!r}; compare it with the one that was delivered") from error


def write_pinned(found: Pinned, *, path: Path | None = None, dry_run: bool = False) -> bool:
    """Writes the pinned part of pins.toml (or of `path`), the same text for the same facts; whether that changes it."""
    path = path or image_file("pins.toml")
    before = path.read_text()
    kept = before.partition(_PINNED_MARK)[0].rstrip()
    lines = [_PINNED_MARK, "", "[pinned]"]
    lines += [f'{name} = "{getattr(found, name)}"' for name in ("registry_digest", "root", "uv")]
    lines += ["", "[pinned.pythons]", *(f'"{name}" = "{value}"' for name, value in found.pythons.items())]
    lines += ["", "[pinned.packages]", *(f'"{name}" = "{value}"' for name, value in sorted(found.packages.items()))]
    text = "\n".join([kept, "", *lines, ""])
    if text != before and not dry_run:
        part = path.with_name(".pins.toml.part")
        part.write_text(text)
        part.rename(path)
    return text != before
