"""Two hosts of one cluster: each with a docker engine, a data root, a launcher and a home of its own; they share a
registry and the folder of artifacts. What one has built the other pulls when it needs it.

The second engine has a network namespace of its own: one without a bridge removes that of the first.
"""

import contextlib
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from swefactory.artifacts import LocalArtifacts
from swefactory.config import Settings
from swefactory.errors import InfrastructureError
from swefactory.protocols import EnvironmentSpec, SandboxSpec
from swefactory.sandboxes.bootstrap import bootstrap_images
from swefactory.sandboxes.docker import DockerBackend
from swefactory.sandboxes.docker_engine import Engine
from swefactory.sandboxes.docker_launcher import LauncherServer
from swefactory.sandboxes.docker_launcher_orders import LauncherRules
from swefactory.wiring import make_docker
from tests.conftest import free_port
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


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    """A network namespace with one way in and out: this machine is 1, the second host 2 of its addresses."""
    name = f"swf{uuid.uuid4().hex[:8]}"
    own, other = f"{name}a", f"{name}b"
    subnet = f"10.213.{int(name[3:5], 16)}"
    commands = (
        f"ip netns add {name}",
        f"ip link add {own} type veth peer name {other} netns {name}",
        f"ip address add {subnet}.1/30 dev {own}",
        f"ip link set {own} up",
        f"ip -n {name} address add {subnet}.2/30 dev {other}",
        f"ip -n {name} link set {other} up",
        f"ip -n {name} link set lo up",
    )
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, timeout=30)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, timeout=30)


def here(network: str) -> str:
    return f"10.213.{int(network[3:5], 16)}.1"


@pytest.fixture(scope="module")
def registry_port(tmp_path_factory: pytest.TempPathFactory, network: str) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    program = shutil.which("docker-registry")
    assert program, "docker-registry is not installed (Debian: apt install docker-registry)"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\n"
        f"http: {{addr: '0.0.0.0:{port}'}}\n"
    )
    with ended_after([program, "serve", str(folder / "config.yml")], folder / "log"):
        wait(lambda: requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5).ok, folder / "log")
        yield port


@pytest.fixture(scope="module")
def second_engine(tmp_path_factory: pytest.TempPathFactory, network: str, registry_port: int) -> Iterator[str]:
    """The socket of a docker engine with a data root of its own."""
    folder = tmp_path_factory.mktemp("engine")
    socket = folder / "docker.sock"
    command = [
        "nsenter", f"--net=/run/netns/{network}", "dockerd", "--host", f"unix://{socket}",
        "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid"),
        "--bridge", "none", "--iptables=false", "--ip6tables=false",
        "--insecure-registry", f"{here(network)}:{registry_port}",
    ]  # fmt: skip
    with ended_after(command, folder / "log"):
        wait(lambda: docker.DockerClient(f"unix://{socket}").ping(), folder / "log")
        yield str(socket)


@contextmanager
def ended_after(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def wait(answers: Any, log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
            if answers():
                return
        time.sleep(0.2)
    pytest.fail(log.read_text(errors="replace")[-3000:])


@pytest.fixture
def hosts(
    docker_engine: Any, network: str, registry_port: int, second_engine: str, tmp_path: Path
) -> Iterator[tuple[Host, Host]]:
    first_socket = os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or "/var/run/docker.sock"
    artifacts = tmp_path / "artifacts"
    if (direct := DockerBackend(tmp_path / "direct")).probe():
        bootstrap_images(direct, versions=["3.12"])
    with (
        host(tmp_path / "one", first_socket, f"127.0.0.1:{registry_port}/team", artifacts) as one,
        host(tmp_path / "two", second_engine, f"{here(network)}:{registry_port}/team", artifacts) as two,
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
