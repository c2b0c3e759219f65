"""The launcher: what is not in its schema is refused with one sentence, and what is comes to the same as without it."""

import io
import json
import tarfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import docker
import pytest
import requests
from docker.types import ContainerConfig, HostConfig

from swefactory.errors import InfrastructureError, SandboxUnavailable, UsageError
from swefactory.sandbox_protocols import EnvironmentSpec, Limits, SandboxSpec
from swefactory.sandboxes.docker import DockerBackend
from swefactory.sandboxes.docker_container import create_parameters, host_config
from swefactory.sandboxes.docker_engine import Engine
from swefactory.sandboxes.docker_launched import Launcher
from swefactory.sandboxes.docker_launcher import LauncherServer
from swefactory.sandboxes.docker_launcher_orders import LauncherRules
from swefactory.sandboxes.docker_launcher_rules import Refused, examine
from tests.sandbox_contract import LOCK, locked_environment, spec_of

TOKEN = "a-token-of-some-length"
MAXIMUM = Limits(memory_bytes=2**30, n_processes=128, n_cpus=1.0, file_bytes=2**28, disk_bytes=2**29)
CONTAINER = "0123456789ab"


@contextmanager
def launcher(engine: Engine, socket_path: str) -> Iterator[Launcher]:
    rules = LauncherRules(TOKEN, MAXIMUM, roots=("debian:bookworm-slim",), registry="127.0.0.1:5000/team")
    with LauncherServer(("127.0.0.1", 0), engine, socket_path, rules) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Launcher(f"http://127.0.0.1:{server.server_port}", TOKEN)
        server.shutdown()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """In front of no engine: whoever gets past the schema is told that it does not answer."""
    path = f"{tmp_path_factory.mktemp('engine')}/none.sock"
    with launcher(Engine(f"unix://{path}"), path) as made:
        yield made


def create_body() -> dict[str, Any]:
    """What the sandbox itself sends."""
    bounds = HostConfig(version="1.41", **host_config(MAXIMUM))
    parameters = create_parameters("17.3", "swefactory/env:0", "home-0")
    del parameters["use_config_proxy"]
    made: dict[str, Any] = json.loads(json.dumps(ContainerConfig("1.41", host_config=bounds, **parameters)))
    return made


def changed(where: str, value: object) -> dict[str, Any]:
    body = create_body()
    *parents, last = where.split(".")
    inner = body
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return body


def refused(made: Launcher, method: str, path: str, *, body: object = None, data: bytes | None = None) -> str:
    answer = requests.request(method, f"{made.url}{path}", json=body, data=data, headers=made.headers, timeout=30)
    assert answer.status_code == 403, answer.text
    message: str = answer.json()["message"]
    assert "\n" not in message
    return message


_CREATE = (
    ("HostConfig.Binds", ["/:/host"]),
    ("HostConfig.Mounts", [{"Type": "bind", "Source": "/", "Target": "/host"}]),
    ("HostConfig.Privileged", True),
    ("HostConfig.NetworkMode", "host"),
    ("HostConfig.PidMode", "host"),
    ("HostConfig.IpcMode", "host"),
    ("HostConfig.CapDrop", []),
    ("HostConfig.CapAdd", ["SYS_ADMIN"]),
    ("HostConfig.Devices", [{"PathOnHost": "/dev/mem", "PathInContainer": "/dev/mem", "CgroupPermissions": "rwm"}]),
    ("HostConfig.SecurityOpt", ["seccomp=unconfined"]),
    ("HostConfig.VolumesFrom", ["other"]),
    ("HostConfig.CgroupParent", "/"),
    ("HostConfig.Runtime", "other"),
    ("HostConfig.Memory", 2**31),
    ("HostConfig.MemorySwap", -1),
    ("HostConfig.PidsLimit", 4096),
    ("HostConfig.NanoCpus", 64_000_000_000),
    ("HostConfig.StorageOpt", {"size": "999G"}),
    ("HostConfig.NoSuchField", 1),
    ("User", "0:0"),
    ("Image", "debian:bookworm-slim"),
    ("Image", "swefactory/../other:1"),
    ("Entrypoint", ["/bin/sh"]),
    ("Cmd", ["/bin/sh", "-c", "true"]),
    ("Volumes", {"/host": {}}),
    ("Labels", {"swefactory": "1", "swefactory.job": "1.1", "swefactory.home": "h", "other": "1"}),
    ("Labels", {"swefactory.job": "1.1", "swefactory.home": "h"}),
    ("Env", ["LD_PRELOAD=/x"]),
    ("NetworkingConfig", {"EndpointsConfig": {"host": {}}}),
)


@pytest.mark.parametrize(("where", "value"), _CREATE)
def test_a_container_other_than_ours_is_refused_and_the_sentence_names_the_field(
    closed: Launcher, where: str, value: object
) -> None:
    said = refused(closed, "POST", "/v1.41/containers/create", body=changed(where, value))
    limits = {"Memory": "memory_bytes", "PidsLimit": "n_processes", "NanoCpus": "n_cpus", "StorageOpt": "disk"}
    last = where.split(".")[-1]
    assert limits.get(last, last) in said


def test_our_own_container_passes_the_schema_and_what_was_examined_is_what_is_sent() -> None:
    ours = create_body()
    twice = b'{"HostConfig": {"Binds": ["/:/host"]}, ' + json.dumps(ours).encode()[1:]  # some parsers merge the two
    passed = examine("POST", "/v1.41/containers/create", {}, twice, MAXIMUM)
    assert (passed.image, json.loads(passed.body)) == ("swefactory/env:0", ours)
    assert b"Binds" not in passed.body


def _exec(**fields: object) -> dict[str, object]:
    supervised = {"User": "1000:1000", "Cmd": ["/opt/swefactory/supervise", "1", "true"], "Privileged": False}
    return {**supervised, **fields}


def _filters(**filters: object) -> str:
    return quote(json.dumps(filters))


_REQUESTS: tuple[tuple[str, str, object, str], ...] = (
    ("GET", "/info", None, "GET /info"),
    ("POST", "/build", None, "POST /build"),
    ("POST", "/session", None, "POST /session"),
    ("POST", "/grpc", None, "POST /grpc"),
    ("POST", "/images/create?fromImage=x", None, "POST /images/create"),
    ("POST", "/images/load", None, "POST /images/load"),
    ("POST", "/volumes/create", {}, "POST /volumes/create"),
    ("POST", "/networks/create", {}, "POST /networks/create"),
    ("POST", "/containers/prune", None, "POST /containers/prune"),
    ("POST", "/images/prune", None, "POST /images/prune"),
    ("POST", "/commit", {}, "POST /commit"),
    ("POST", f"/containers/{CONTAINER}/update", {}, "update"),
    ("POST", f"/containers/{CONTAINER}/attach", None, "attach"),
    ("GET", f"/containers/{CONTAINER}/archive?path=/", None, "archive"),
    ("GET", f"/containers/{CONTAINER}/export", None, "export"),
    ("PUT", f"/containers/{CONTAINER}/archive?path=/etc", None, "path"),
    ("GET", "/containers/named-by-somebody/json", None, "named-by-somebody"),
    ("GET", "/containers/json", None, "our label"),
    ("GET", f"/containers/json?filters={_filters(label=['other=1'])}", None, "our label"),
    ("GET", f"/events?filters={_filters(container=[CONTAINER])}", None, "until"),
    ("GET", f"/containers/json?filters={_filters(label=1)}", None, "no lists"),
    ("GET", "/images/json?digests=1", None, "digests"),
    ("GET", "/images/json", None, "our label"),
    ("DELETE", "/images/swefactory/env:0?force=True", None, "force"),
    ("POST", "/images/swefactory/env:0/tag?repo=elsewhere/x&tag=1", None, "repo"),
    ("POST", "/images/swefactory/env:0/tag?repo=swefactory/worker&tag=latest", None, "repo"),
    ("POST", f"/containers/{CONTAINER}/start", {"Binds": ["/:/host"]}, "body"),
    ("POST", f"/containers/{CONTAINER}/exec", _exec(Privileged=True), "privileged"),
    ("POST", f"/containers/{CONTAINER}/exec", _exec(User="0"), "1000:1000"),
    ("POST", f"/containers/{CONTAINER}/exec", _exec(Cmd=["/bin/sh"]), "supervise"),
    ("POST", f"/containers/{CONTAINER}/exec", _exec(Other=1), "Other"),
    ("POST", f"/exec/{CONTAINER}/start", {"Detach": True}, "nobody listens"),
    ("POST", "/containers/create", ["a list"], "no JSON object"),
    ("POST", "/launcher/pull", {"name": "debian:sid", "timeout_s": 9.0}, "debian:sid"),
    ("POST", "/launcher/push", {"name": "debian:bookworm-slim", "timeout_s": 9.0}, "push"),
    ("POST", "/launcher/pull", {"name": "x", "timeout_s": 9.0, "other": 1}, "other"),
    ("POST", "/launcher/prune", {}, "prune"),
)


@pytest.mark.parametrize(("method", "path", "body", "word"), _REQUESTS)
def test_a_request_outside_the_schema_is_refused(
    closed: Launcher, method: str, path: str, body: object, word: str
) -> None:
    assert word in refused(closed, method, path, body=body)


def order(members: Mapping[str, bytes] | None = None, link: str = "", **fields: object) -> bytes:
    said = {"template": "uv.Dockerfile", "tag": "swefactory/uv:1", "arguments": {}, "labels": {}, "secrets": [],
            "has_output": False, "timeout_s": 60.0, **fields}  # fmt: skip
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in {"order.json": json.dumps(said).encode(), **(members or {})}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("secrets/index")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return file.getvalue()


_ORDERS = (
    (order(template="../../etc/passwd"), "passwd"),
    (order(template="Dockerfile"), "Dockerfile"),
    (order(tag="debian:bookworm-slim"), "tag"),
    (order(tag="swefactory/worker:latest"), "tag"),
    (order(tag="swefactory/redis:latest"), "tag"),
    (order(template="worker.Dockerfile"), "worker.Dockerfile"),
    (order(tag="", has_output=False), "one of the two"),
    (order(arguments={"BUILDKIT_SYNTAX": "elsewhere/frontend"}), "BUILDKIT_SYNTAX"),
    (order(labels={"other": "1"}), "other"),
    (order(secrets=["shadow"]), "shadow"),
    (order(secrets=["index"]), "did not come"),
    (order(secrets=["index"], link="/etc/shadow"), "unpack"),
    (order({"elsewhere/x": b""}), "elsewhere/x"),
    (order({"context/../../x": b""}), "unpack"),
    (order(network="host"), "network"),
    (order(timeout_s=10.0**9), "timeout_s"),
    (b"no tar at all" * 100, "unpack"),
)


@pytest.mark.parametrize(("sent", "word"), _ORDERS)
def test_a_build_outside_the_schema_is_refused(closed: Launcher, sent: bytes, word: str) -> None:
    assert word in refused(closed, "POST", "/launcher/build", data=sent)


def test_a_path_that_another_parser_may_shorten_is_refused() -> None:
    for path in (f"/images/x/../../containers/{CONTAINER}", f"/images//{CONTAINER}"):
        with pytest.raises(Refused, match="follows no path"):
            examine("DELETE", path, {}, b"", MAXIMUM)


def test_another_token_reaches_nothing(closed: Launcher) -> None:
    for headers in ({}, {"Authorization": "Bearer other"}):
        answer = requests.get(f"{closed.url}/version", headers=headers, timeout=30)
        assert (answer.status_code, "SWEFACTORY_LAUNCHER_TOKEN" in answer.text) == (401, True)
    with pytest.raises(UsageError, match="token"):
        LauncherServer(("127.0.0.1", 0), Engine(), "/none", LauncherRules("short"))


def test_a_launcher_without_an_engine_says_so(closed: Launcher, tmp_path: Path) -> None:
    assert "does not answer" in str(DockerBackend(tmp_path, launcher=closed).probe())
    with pytest.raises(SandboxUnavailable, match="another token"):
        _ = DockerBackend(tmp_path, launcher=Launcher(closed.url, "other")).engine.client


def looked_at(backend: DockerBackend, environment: EnvironmentSpec, folder: Path) -> list[object]:
    """What a sandbox answers to a little of everything."""
    folder.mkdir()
    (folder / "code.py").write_text("print('from the checkout')\n")
    limits = Limits(memory_bytes=2**29, n_processes=64, n_cpus=1.0, file_bytes=2**26, disk_bytes=2**28)
    with backend.open(SandboxSpec(environment, folder, limits=limits, label="1.1")) as sandbox:
        sandbox.write("/tmp/note", b"\x00\xff" * 70_000)
        runs = [
            sandbox.run(["/opt/env/bin/python", "code.py"], timeout_s=60),
            sandbox.run(["/opt/env/bin/python", "-c", "import iniconfig; print(iniconfig.__name__)"], timeout_s=60),
            sandbox.run(["/bin/cat"], stdin=b"in and out" * 9_000, timeout_s=60),
            sandbox.run(["/bin/sh", "-c", "echo no >&2; exit 7"], timeout_s=60),
            sandbox.run(["/bin/sh", "-c", "(sleep 600 &); id -u; ls /testbed"], timeout_s=60),
            sandbox.run(["/bin/sleep", "600"], timeout_s=2),
        ]
        left = sandbox.read("/tmp/note")
    return [left, *((run.exit_code, run.output, run.timed_out, run.out_of_memory) for run in runs)]


def test_a_sandbox_through_the_launcher_does_what_one_without_it_does(docker_engine: Any, tmp_path: Path) -> None:
    direct = DockerBackend(tmp_path / "direct")
    if why := direct.probe():
        pytest.skip(why)
    host = docker_engine.api.base_url.removeprefix("http+docker://localhost") or "/var/run/docker.sock"
    environment = locked_environment(direct)
    with launcher(Engine(), host if host.startswith("/") else "/var/run/docker.sock") as made:
        launched = DockerBackend(tmp_path / "launched", launcher=made)
        assert launched.probe() is None
        own = spec_of(f"# {uuid.uuid4()}\n{LOCK}", environment.python_version)
        assert launched.materialise(own).built
        try:
            assert looked_at(launched, own, tmp_path / "one") == looked_at(direct, environment, tmp_path / "two")
            foreign = docker_engine.api.create_container(launched.images.environment_name(own), "true")["Id"]
            try:
                with pytest.raises(docker.errors.APIError, match="no label swefactory"):
                    launched.engine.api.remove_container(foreign, force=True)
            finally:
                docker_engine.api.remove_container(foreign, force=True)
            with pytest.raises(InfrastructureError, match="memory_bytes of at most"):
                greedy = SandboxSpec(own, tmp_path / "one", limits=Limits(memory_bytes=2**40), label="1.1")
                launched.open(greedy).__enter__()
            assert launched.sweep(lambda _: False) == 0
        finally:
            assert launched.evict(own.digest)
