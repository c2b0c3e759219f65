"""Two hosts of one cluster: each with a docker engine, a data root, a launcher and a home of its own; they share a
registry and the folder of artifacts. What one has built the other pulls when it needs it.
"""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swefactory.artifacts import LocalArtifacts
from swefactory.config import Settings
from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import EnvironmentSpec, SandboxSpec
from swefactory.sandboxes.bootstrap import bootstrap_images
from swefactory.sandboxes.docker import DockerBackend
from swefactory.sandboxes.docker_engine import Engine
from swefactory.sandboxes.docker_launcher import LauncherServer
from swefactory.sandboxes.docker_launcher_orders import LauncherRules
from swefactory.wiring import make_docker
from tests import second_host
from tests.sandbox_contract import LOCK, SMALL, printed, python, spec_of

TOKEN = "a-token-of-some-length"


@dataclass(frozen=True)
class Host:
    """`backend` is what a worker there has: it knows the launcher, not the engine."""

    backend: DockerBackend
    settings: Settings
    engine: Engine


@contextmanager
def host(folder: Path, socket: str, registry: str, artifacts: Path) -> Iterator[Host]:
    engine = Engine(f"unix://{socket}")
    rules = LauncherRules(TOKEN, registry=registry)
    with LauncherServer(("127.0.0.1", 0), engine, socket, rules) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = Settings(
            home=folder, sandbox="docker", artifact_dir=artifacts, image_registry=registry, image_push=True,
            launcher_url=f"http://127.0.0.1:{server.server_port}", launcher_token=TOKEN,
        )  # fmt: skip
        yield Host(make_docker(settings), settings, engine)
        server.shutdown()


@pytest.fixture
def hosts(docker_engine: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    artifacts, first = tmp_path / "artifacts", second_host.first_socket()
    if (direct := DockerBackend(tmp_path / "direct")).probe():
        bootstrap_images(direct, versions=["3.12"])
    with (
        second_host.linked() as link,
        second_host.registry(tmp_path_factory.mktemp("registry")) as port,
        second_host.engine(tmp_path_factory.mktemp("engine"), link, port) as engine,
        host(tmp_path / "one", first, f"127.0.0.1:{port}/team", artifacts) as one,
        host(tmp_path / "two", engine.socket, f"{link.here}:{port}/team", artifacts) as two,
    ):
        yield one, two


def opened(backend: DockerBackend, spec: EnvironmentSpec, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    return backend.open(SandboxSpec(spec, folder, limits=SMALL, label="1.1"))


def test_a_host_runs_what_another_has_built_and_stored(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    lock = f"# {uuid.uuid4()}\n{LOCK}"
    stored = LocalArtifacts(one.settings.artifacts_dir).put(lock.encode(), "text/plain")
    spec = spec_of(lock, "3.12")
    made = one.backend.materialise(spec)
    try:
        assert made.built
        assert "[shared as" in made.log
        same = spec_of(LocalArtifacts(two.settings.artifacts_dir).get(stored.digest).decode(), "3.12")
        with opened(two.backend, same, tmp_path / "checkout") as sandbox:
            assert printed(python(sandbox, "import iniconfig; print(2)")) == "2\n"
            there = two.engine.api.containers(filters={"label": "swefactory.job=1.1"})
            assert [each["Image"] for each in there] == [made.locator]
        assert not two.backend.materialise(same).built
        one_image, two_image = one.engine.image(made.locator), two.engine.image(made.locator)
        assert one_image is not None
        assert two_image is not None
        assert one_image.id == two_image.id
        assert not any(tag.startswith("127.0.0.1") for tag in one_image.tags)
        with pytest.raises(InfrastructureError, match="no image of a sandbox"):
            name = "swefactory/worker:latest"  # the launcher itself runs from it
            one.backend.engine.share(name, one.backend.images.registry.there(name), 60)
    finally:
        assert one.backend.evict(spec.digest)
