"""Runs uv's resolver in a docker build. One property: as in resolution.py, what is built never writes a shared cache.

Not in a container: a build has what this needs and a container has not, a cache that uv's runs share and secrets that
no file of the engine keeps. See images/resolve.Dockerfile and images/resolve.sh.
"""

import secrets
import shutil
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from swefactory.errors import InfrastructureError
from swefactory.image_files import image_file
from swefactory.sandbox_protocols import UvRun
from swefactory.sandboxes.build_faults import log_text
from swefactory.sandboxes.docker_engine import Build
from swefactory.sandboxes.docker_filling import UV27
from swefactory.sandboxes.docker_images import DockerImages
from swefactory.sandboxes.python27 import is_described, write_description
from swefactory.sandboxes.resolution import is_barred, write_probe

_UNBARRED = "unbarred"


def run_uv(
    images: DockerImages,
    arguments: Sequence[str],
    *,
    files: Mapping[str, str],
    writes: str,
    python_version: str,
    timeout_s: float,
) -> UvRun:
    """See SandboxBackend.run_uv."""
    deadline = time.monotonic() + timeout_s
    image, program, _ = images.python(python_version)
    with tempfile.TemporaryDirectory(dir=images.work_folder()) as name:
        context = Path(name) / "context"
        described = is_described(python_version)
        uv_program = f"/inputs/{UV27}/python" if described else program
        _lay_out(context, images, [*arguments, "--python", uv_program], files, writes)
        if described:
            write_description(context / "inputs" / UV27, program)
        made = {"PYTHON_IMAGE": image, "PYTHON": program, "UV_IMAGE": images.uv()}
        run = _run(images, context, made, "barred", timeout_s)
        if run is not None and not is_barred(run.result):
            return run
        run = _run(images, context, made, "building", max(1.0, deadline - time.monotonic()))
    if run is None:
        raise InfrastructureError("the resolver's build answered nothing; see images/resolve.sh")
    return run


def _lay_out(
    context: Path, images: DockerImages, arguments: Sequence[str], files: Mapping[str, str], writes: str
) -> None:
    inputs = context / "inputs"
    (inputs / "files").mkdir(parents=True)
    images.lay_out(context)
    # Credentials must not travel to the engine with the context: they are handed over as secrets only.
    (context / ".dockerignore").write_text("index.env\nuv.toml\n")
    shutil.copyfile(image_file("resolve.sh"), inputs / "resolve.sh")
    (inputs / "arguments").write_text("".join(f"{argument}\n" for argument in arguments))
    (inputs / "writes").write_text(writes)
    for name, text in files.items():
        (inputs / "files" / name).write_text(text)
    write_probe(inputs / "probe")


def _run(
    images: DockerImages, context: Path, arguments: Mapping[str, str], mode: str, timeout_s: float
) -> UvRun | None:
    """None where the bar does not hold."""
    is_building = mode == "building"
    named = {"index": context / "index.env", "uv": context / "uv.toml"}
    present = {} if is_building else {key: path for key, path in named.items() if path.exists()}
    tar = context.with_name(f"{mode}.tar")
    arguments = {**arguments, "MODE": mode, "NONCE": secrets.token_hex(8)}
    build = Build(context, image_file("resolve.Dockerfile"), "", arguments, {}, present, output=tar)
    result = images.engine.build(build, timeout_s)
    if result.timed_out:
        return UvRun(result, None, is_building)
    left = _left(tar) if result.exit_code == 0 else {}
    status = left.get("status", b"").decode().strip()
    if status == _UNBARRED:
        return None
    if not status.isdigit():
        raise InfrastructureError(f"docker could not run the resolver: {log_text(result)[-2000:]}")
    said = replace(result, exit_code=int(status), output=left.get("log", b""))
    return UvRun(said, left.get("written"), is_building)


def _left(tar: Path) -> dict[str, bytes]:
    """The plain files of the exported image."""
    with tarfile.open(tar) as archive:
        files = ((member.name, archive.extractfile(member)) for member in archive if member.isreg())
        return {name.removeprefix("./"): file.read() for name, file in files if file is not None}
