"""`swefactory images`: base images for the docker sandbox."""

from pathlib import Path
from typing import Annotated

import typer

from swefactory.cli.context import AsJson, settings
from swefactory.cli.output import console, errors, show
from swefactory.errors import UsageError
from swefactory.wiring import make_sandboxes

app = typer.Typer(no_args_is_help=True, help="Base images for the docker sandbox.")


@app.callback()
def group() -> None:
    """A callback keeps `bootstrap` a command of its own while it is the only one."""


@app.command()
def bootstrap(
    versions: Annotated[
        list[str] | None,
        typer.Option("--python", help="An interpreter version, as 3.9 (repeatable); default all here."),
    ] = None,
    root_tar: Annotated[Path | None, typer.Option(help="A root file system as a tar file.")] = None,
    root_image: Annotated[str, typer.Option(help="An image of the engine to start from.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make the base images, without an image registry where none is reached (debootstrap and this machine's Pythons).

    Examples: `swefactory images bootstrap` · `swefactory images bootstrap --python 3.9 --python 3.12` ·
    `swefactory images bootstrap --root-tar debian.tar`
    """
    from swefactory.sandboxes.bootstrap import BootstrapSource, bootstrap_images
    from swefactory.sandboxes.docker import DockerBackend

    if root_tar and root_image:
        raise UsageError("--root-tar and --root-image exclude each other: the base has one root file system")
    backend = make_sandboxes(settings(sandbox="docker"))
    assert isinstance(backend, DockerBackend)
    made = bootstrap_images(
        backend,
        versions=versions,
        source=BootstrapSource(root_tar=root_tar, root_image=root_image),
        progress=lambda line: errors.print(line, markup=False),
    )
    rows = [[image.name, image.size_bytes // 2**20, image.duration_s, image.made] for image in made]
    show(["image", "MiB", "seconds", "made now"], rows, as_json=as_json)
    if not as_json:
        console.print("next: SWEFACTORY_SANDBOX=docker swefactory run")
