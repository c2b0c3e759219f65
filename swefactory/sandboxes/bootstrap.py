"""Makes the docker sandbox's base image where no registry is reached. One property: nothing of this machine's
addresses, certificates or settings stays in the image.

The root file system comes from a tar file, from an image, from a registry, or from debootstrap with the machine's
own package sources; tools and interpreters are then put on it by the same templates whichever it was.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swefactory.errors import InfrastructureError, SandboxUnavailable, UsageError
from swefactory.sandboxes.build_context import debian_address
from swefactory.sandboxes.cluster_images import cluster_images, write_build_settings
from swefactory.sandboxes.commands import run_command
from swefactory.sandboxes.docker import DockerBackend
from swefactory.sandboxes.docker_images import DockerImages
from swefactory.sandboxes.image_pins import registry_name

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PULL_TIMEOUT_S = 120
ORIGIN_LABEL = "swefactory.origin"  # of the base image: which way its root file system came
_SPARE = (
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
)


@dataclass(frozen=True)
class BootstrapSource:
    """Where the root file system comes from: at most one of the first two; neither: a registry, then debootstrap."""

    root_tar: Path | None = None
    root_image: str = ""
    address: str = ""  # for debootstrap; empty: the machine's own, else debootstrap's


@dataclass(frozen=True)
class BootstrappedImage:
    name: str
    size_bytes: int
    duration_s: float
    made: bool


def bootstrap_images(
    backend: DockerBackend,
    *,
    versions: Sequence[str] | None = None,
    source: BootstrapSource | None = None,
    cluster: Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[BootstrappedImage]:
    """Makes the base, then the interpreter images of `versions` (None: every one this machine can give); what stands
    is left alone. With `cluster` also the images of compose.yaml, and that folder for the builds of its workers.
    Raises SandboxUnavailable, UsageError, InfrastructureError, Rejected(NO_INTERPRETER)."""
    images = backend.images
    made = [
        _step(images, images.pins.base_image, lambda: _base(images, source or BootstrapSource(), progress), progress)
    ]
    for version in versions if versions is not None else backend.pythons():
        made.append(_step(images, f"{images.pins.python_image}:{version}", _python(images, version), progress))
    if cluster is not None:
        write_build_settings(cluster, images.pins.suite)
        made += [_step(images, name, make, progress) for name, make in cluster_images(images).items()]
    return made


def _python(images: DockerImages, version: str) -> Callable[[], object]:
    return lambda: images.python(version)


def _step(
    images: DockerImages, name: str, make: Callable[[], object], progress: Callable[[str], None]
) -> BootstrappedImage:
    started = time.monotonic()
    before = images.engine.image(name)
    progress(f"{name}: " + ("looking whether it is up to date" if before else "making it"))
    make()
    after = images.engine.image(name)
    if after is None:
        raise InfrastructureError(f"the image {name} was made but is gone; is something pruning images?")
    done = BootstrappedImage(
        name, after.size_bytes, time.monotonic() - started, before is None or before.id != after.id
    )
    progress(f"{name}: {done.size_bytes / 1e6:.0f} MB, {done.duration_s:.1f} s{'' if done.made else ', stood already'}")
    return done


def _base(images: DockerImages, source: BootstrapSource, progress: Callable[[str], None]) -> None:
    pins = images.pins
    if source.root_tar and source.root_image:
        raise UsageError("a base image is made from a tar file or from an image, not from both; leave one out")
    if source.root_tar is None and not source.root_image and images.engine.image(pins.base_image):
        return
    if source.root_tar is not None and not source.root_tar.is_file():
        raise UsageError(f"there is no file {source.root_tar}; give a tar of a root file system")
    root = source.root_image or _root_name(images)
    way = f"the image {source.root_image}" if source.root_image else "Debian's packages (debootstrap)"
    if source.root_tar is not None:
        way = "a given root file system"
        images.engine.import_root(None, source.root_tar, root, images.timeout_s)
    elif not source.root_image and images.engine.image(root) is None:
        wanted = registry_name(pins)
        progress(f"asking a registry for {wanted}")
        if why := images.engine.pull(wanted, _PULL_TIMEOUT_S):
            progress(f"no registry gives it ({why}); making the root file system from Debian's packages")
            _debootstrap(images, source.address, root, progress)
        else:
            root, way = wanted, f"a registry ({wanted})"
    progress("putting tools on it")
    images.prepared(root, pins.base_image, {ORIGIN_LABEL: way})


def origin(images: DockerImages) -> str:
    """Which way the base came here, in words. Raises SandboxUnavailable where there is none."""
    if images.base_image:
        return f"from {images.base_image}, as SWEFACTORY_DOCKER_BASE_IMAGE says"
    name, image = images.base()
    way = image.labels.get(ORIGIN_LABEL, "another machine, or a version that did not say")
    return f"{name} from {way}; interpreters: this machine's, with their paths rewritten"


def _root_name(images: DockerImages) -> str:
    return f"swefactory/root:{images.pins.suite}"


def _debootstrap(images: DockerImages, address: str, name: str, progress: Callable[[str], None]) -> None:
    suite = images.pins.suite
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise SandboxUnavailable(
            "neither a registry nor debootstrap can give a base image; run this as root with debootstrap installed "
            "(Debian: apt install debootstrap), or give a root file system: swefactory images bootstrap --root-tar FILE"
        )
    with tempfile.TemporaryDirectory(dir=images.work_folder()) as folder:
        root = Path(folder) / "root"
        keyring = [f"--keyring={_KEYRING}"] if _KEYRING.exists() else []
        mirror = address or debian_address(suite)
        argv = ["debootstrap", "--variant=minbase", *keyring, "--include=ca-certificates", suite, str(root)]
        result = run_command(
            [*argv, *([mirror] if mirror else [])],
            timeout_s=images.timeout_s,
            output_bytes=2**20,
            env=_bare_environment(),
        )
        if result.exit_code != 0:
            lines = result.output.decode(errors="replace").strip().splitlines()
            said = "time ran out" if result.timed_out else (lines or ["it said nothing"])[-1]
            raise InfrastructureError(
                f"debootstrap could not make {suite}: {said}; is Debian's package archive reached?"
            )
        _strip(root, keep_sources=mirror is None)
        progress("handing the root file system to docker")
        images.engine.import_root(root, None, name, images.timeout_s)
        subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=False, timeout=300)


def _bare_environment() -> dict[str, str]:
    """Locale and cache variables of the caller do not reach the packages' scripts."""
    passed = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {**passed, "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C", "HOME": "/root"}


def _strip(root: Path, *, keep_sources: bool) -> None:
    for name in _SPARE:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("etc/hostname", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)
    if not keep_sources:
        (root / "etc" / "apt" / "sources.list").write_text("")
