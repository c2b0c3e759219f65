"""Makes the images of compose.yaml on the bootstrapped base, and the folder its workers build with. One property: what
the machine's builds need (addresses, certificates) is in that folder and in no image.

    swefactory/worker      our services: the locked packages and this source
    swefactory/postgres    the catalog
    swefactory/redis       the broker
    FOLDER                 what build_context lays out here, for builds that workers in containers ask for

An image that stands and was made of the same files is made again from the engine's cache, in seconds.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from swefactory.errors import UsageError
from swefactory.image_files import image_file, images_folder
from swefactory.sandboxes.build_context import apt_options, lay_out
from swefactory.sandboxes.docker_images import DockerImages

WORKER, POSTGRES, REDIS = "swefactory/worker:latest", "swefactory/postgres:latest", "swefactory/redis:latest"
PYTHON = "3.12"  # what requirements.lock is resolved for
_SOURCE = ("requirements.lock", "swefactory", "workers", "db", "images")


def cluster_images(images: DockerImages) -> dict[str, Callable[[], object]]:
    """By name, what makes each. Raises SandboxUnavailable, UsageError, InfrastructureError when called."""
    return {
        POSTGRES: lambda: _service(images, POSTGRES, "postgres.Dockerfile", "postgres-entry.sh"),
        REDIS: lambda: _service(images, REDIS, "redis.Dockerfile"),
        WORKER: lambda: _worker(images),
    }


def write_build_settings(folder: Path, suite: str) -> None:
    """What builds need of this machine. Credentials of a package index are readable to the workers' group alone."""
    shutil.rmtree(folder, ignore_errors=True)
    lay_out(folder, suite)
    for path in (folder / "index.env", folder / "uv.toml"):
        if path.exists():
            shutil.chown(path, group=1000)
            path.chmod(0o640)


def _service(images: DockerImages, name: str, template: str, *files: str) -> None:
    base, _ = images.base()
    with images.context() as context:
        for file in files:
            shutil.copyfile(image_file(file), context / file)
        images.built(context, template, name, {"BASE": base, "APT_OPTIONS": apt_options(context)}, {})


def _worker(images: DockerImages) -> None:
    import uv

    root = images_folder().parent
    if missing := [name for name in _SOURCE if not (root / name).exists()]:
        raise UsageError(f"the worker's image is made from the source, and {root / missing[0]} is not there")
    image, program, _ = images.python(PYTHON)
    with images.context() as context:
        for name in _SOURCE:
            _copied(root / name, context / name)
        shutil.copy(uv.find_uv_bin(), context / "host" / "uv")
        arguments = {"PYTHON_IMAGE": image, "PYTHON": program, "APT_OPTIONS": apt_options(context)}
        images.built(context, "worker.Dockerfile", WORKER, arguments, {})


def _copied(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
    else:
        shutil.copyfile(source, target)
