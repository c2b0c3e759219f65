"""The docker sandbox passes the contract; and what is its own: flags, images, labels, leftovers."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
import pytest

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected, SandboxUnavailable, UsageError
from swefactory.image_files import image_file, load_pins
from swefactory.sandbox_protocols import CHECKOUT_DIR, CommandResult, EnvironmentSpec, Limits, SandboxSpec
from swefactory.sandboxes.bootstrap import BootstrapSource, bootstrap_images
from swefactory.sandboxes.build_context import debian_sources, lay_out
from swefactory.sandboxes.cluster_images import write_build_settings
from swefactory.sandboxes.docker import DockerBackend
from swefactory.sandboxes.docker_container import create_parameters, host_config
from swefactory.sandboxes.docker_engine import Build
from swefactory.sandboxes.image_pins import what_stands
from swefactory.sandboxes.image_registry import ImageRegistry
from swefactory.sandboxes.index_settings import network_settings
from tests.conftest import free_port
from tests.sandbox_contract import (
    ROOMY,
    SMALL,
    SandboxContract,
    locked_environment,
    printed,
    python,
    resolved,
    spawn,
    spec_of,
)

PLANTED = "sk-TEST-planted-in-the-host"
LIMITS = Limits(memory_bytes=3 * 2**30, n_processes=77, n_cpus=1.5, file_bytes=2**20, disk_bytes=2**30)
SPEC = SandboxSpec(EnvironmentSpec("sha256:00", "3.12", ""), Path("/nowhere"), limits=LIMITS, label="17.3")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, docker_engine: Any) -> Iterator[DockerBackend]:
    made = DockerBackend(tmp_path_factory.mktemp("docker"), build_timeout_s=900)
    if made.probe():
        bootstrap_images(made, versions=[])
    assert made.probe() is None
    yield made
    for image in made.engine.api.images(filters={"label": f"swefactory.home={made.home}"}):
        try:
            made.engine.api.remove_image(image["Id"], force=True)
        except docker.errors.APIError as error:
            if error.status_code != HTTPStatus.CONFLICT:  # another test's container runs on it
                raise


@pytest.fixture(scope="module")
def environment(backend: DockerBackend) -> EnvironmentSpec:
    return locked_environment(backend)


class TestDockerSandbox(SandboxContract):
    pass


# ---------------------------------------------------------------- one test for each hardening flag


def test_the_flags_of_a_sandbox_are_exactly_these() -> None:
    assert host_config(LIMITS) == {
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 77,
        "mem_limit": 3 * 2**30,
        "memswap_limit": 3 * 2**30,
        "nano_cpus": 1_500_000_000,
        "ulimits": [
            {"Name": "nofile", "Soft": 4096, "Hard": 4096},
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "fsize", "Soft": 2**20, "Hard": 2**20},
        ],
        "init": True,
        "log_config": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "1"}},
        "oom_score_adj": 500,
        "shm_size": 256 * 2**20,
        "ipc_mode": "private",
        "privileged": False,
    }


def test_the_network_is_none() -> None:
    assert host_config(LIMITS)["network_mode"] == "none"


def test_every_capability_is_dropped_and_none_is_added() -> None:
    assert host_config(LIMITS)["cap_drop"] == ["ALL"]
    assert "cap_add" not in host_config(LIMITS)


def test_no_new_privileges_are_gained() -> None:
    assert host_config(LIMITS)["security_opt"] == ["no-new-privileges"]


def test_it_is_not_privileged() -> None:
    assert host_config(LIMITS)["privileged"] is False


def test_processes_are_counted() -> None:
    assert host_config(LIMITS)["pids_limit"] == LIMITS.n_processes


def test_memory_is_bounded_and_swap_gives_no_more() -> None:
    assert host_config(LIMITS)["mem_limit"] == host_config(LIMITS)["memswap_limit"] == LIMITS.memory_bytes


def test_processors_are_bounded() -> None:
    assert host_config(LIMITS)["nano_cpus"] == LIMITS.n_cpus * 1e9


def test_open_files_core_files_and_file_sizes_are_bounded() -> None:
    limits = {each["Name"]: (each["Soft"], each["Hard"]) for each in host_config(LIMITS)["ulimits"]}
    assert limits == {"nofile": (4096, 4096), "core": (0, 0), "fsize": (LIMITS.file_bytes, LIMITS.file_bytes)}


def test_an_init_reaps_the_dead() -> None:
    assert host_config(LIMITS)["init"] is True


def test_the_log_is_one_bounded_file() -> None:
    assert host_config(LIMITS)["log_config"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "1"}}


def test_it_is_killed_before_the_worker_when_memory_runs_out() -> None:
    assert host_config(LIMITS)["oom_score_adj"] == 500


def test_shared_memory_is_bounded_and_its_own() -> None:
    assert host_config(LIMITS)["shm_size"] == 256 * 2**20
    assert host_config(LIMITS)["ipc_mode"] == "private"


def test_nothing_of_the_host_is_mounted() -> None:
    named = {*host_config(LIMITS), *create_parameters(SPEC.label, "image", "home")}
    assert not named & {"binds", "mounts", "volumes", "volumes_from", "devices", "device_requests", "tmpfs"}


def test_it_shares_no_namespace_with_the_host() -> None:
    assert not set(host_config(LIMITS)) & {"pid_mode", "userns_mode", "uts_mode", "cgroup_parent", "extra_hosts"}


def test_the_disk_is_bounded_by_the_engine_where_it_can() -> None:
    assert host_config(LIMITS, storage_quota=True)["storage_opt"] == {"size": str(LIMITS.disk_bytes)}


def test_the_other_parameters_are_exactly_these() -> None:
    parameters = create_parameters(SPEC.label, "swefactory/env:0", "home-0")
    environment = parameters.pop("environment")
    assert parameters == {
        "image": "swefactory/env:0",
        "command": ["sleep", "infinity"],
        "user": "1000:1000",
        "working_dir": CHECKOUT_DIR,
        "hostname": "sandbox",
        "labels": {"swefactory": "1", "swefactory.job": "17.3", "swefactory.home": "home-0"},
        "stop_timeout": 2,
        "use_config_proxy": False,
    }
    assert environment["HOME"] == "/home/sandbox"


# ---------------------------------------------------------------- what the engine then says


@contextlib.contextmanager
def opened(
    backend: DockerBackend, environment: EnvironmentSpec, folder: Path, limits: Limits = ROOMY, label: str = ""
) -> Iterator[Any]:
    (folder / "checkout").mkdir(exist_ok=True)
    label = label or f"docker.{uuid.uuid4().hex[:8]}"
    with backend.open(SandboxSpec(environment, folder / "checkout", limits=limits, label=label)) as sandbox:
        yield sandbox


def inspected(backend: DockerBackend, sandbox: Any) -> Any:
    return backend.engine.api.inspect_container(sandbox.container_id)


def test_the_engine_holds_the_bounds_that_were_asked_for(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    with opened(backend, environment, tmp_path, LIMITS) as sandbox:
        said = inspected(backend, sandbox)
    host = said["HostConfig"]
    assert (host["NetworkMode"], host["CapDrop"], host["CapAdd"], host["Privileged"]) == ("none", ["ALL"], None, False)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (LIMITS.memory_bytes, LIMITS.memory_bytes, 77)
    assert (host["Binds"], host.get("Mounts"), said["Mounts"]) == (None, None, [])
    assert (said["Config"]["User"], said["Config"]["Hostname"]) == ("1000:1000", "sandbox")


def test_neither_container_nor_image_holds_a_secret_of_the_host(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SWEFACTORY_GITHUB_TOKEN", "SWEFACTORY_MODEL_API_KEY", "UV_INDEX_SECRET_PASSWORD"):
        monkeypatch.setenv(name, PLANTED)
    fresh = replace(environment, digest=f"sha256:{uuid.uuid4().hex * 2}")
    with opened(backend, fresh, tmp_path) as sandbox:
        told = json.dumps(inspected(backend, sandbox))
        held = sandbox.run(["/bin/grep", "-rlsI", PLANTED, "/opt", "/etc", "/home", "/tmp", "/run"], timeout_s=60)
    name = backend.images.environment_name(fresh)
    history = json.dumps(backend.engine.api.history(name)) + json.dumps(backend.engine.api.inspect_image(name))
    assert PLANTED not in told + history
    assert held.output == b""


def test_addresses_and_certificates_of_this_machine_stay_out_of_the_images(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    with opened(backend, environment, tmp_path) as sandbox:
        assert printed(sandbox.run(["/bin/cat", "/etc/apt/sources.list"], timeout_s=30)) == ""
        for mounted in ("/host", "/cache", "/lock", "/opt/uv"):  # the empty places of what was mounted
            sizes = sandbox.run(["/usr/bin/find", mounted, "-type", "f", "-size", "+0"], timeout_s=30)
            assert sizes.output == b"", mounted
        home = str(Path.home() / ".pyenv")
        found = sandbox.run(["/bin/grep", "-rlsI", home, "/opt/python", "/opt/env"], timeout_s=60)
        assert found.output == b""


def test_a_flood_on_the_containers_own_output_is_bounded(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    with opened(backend, environment, tmp_path) as sandbox:
        log = inspected(backend, sandbox)["HostConfig"]["LogConfig"]
        sandbox.run(["/bin/sh", "-c", "yes > /proc/1/fd/1 & sleep 2"], timeout_s=20)
        kept = len(backend.engine.api.logs(sandbox.container_id, stdout=True, stderr=True))
    assert log == {"Type": "json-file", "Config": {"max-file": "1", "max-size": "10m"}}
    assert kept <= 10 * 2**20


def test_an_image_is_named_and_labelled_by_its_digest(backend: DockerBackend, environment: EnvironmentSpec) -> None:
    made = backend.materialise(environment)
    assert made.locator == "swefactory/env:" + environment.digest.removeprefix("sha256:")[:24]
    labels = backend.engine.api.inspect_image(made.locator)["Config"]["Labels"]
    assert (labels["swefactory"], labels["swefactory.environment"]) == ("1", environment.digest)


def test_an_image_is_shared_by_two_homes(backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path) -> None:
    first = backend.materialise(environment)
    second = DockerBackend(tmp_path).materialise(environment)
    assert (second.locator, second.built) == (first.locator, False)


def test_an_environments_size_leaves_out_what_all_share(backend: DockerBackend, environment: EnvironmentSpec) -> None:
    assert backend.materialise(environment).size_bytes < 20 * 2**20


def test_a_source_distribution_is_built_once_by_itself_and_its_wheel_kept(
    environment: EnvironmentSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: DockerBackend
) -> None:
    fresh, asked = DockerBackend(tmp_path, build_timeout_s=900), list[str]()
    plain = fresh.engine.build

    def build(order: Build, timeout_s: float) -> CommandResult:
        asked.append(order.arguments["INSTALL"])
        return plain(order, timeout_s)

    monkeypatch.setattr(fresh.engine, "build", build)
    pin = "docopt==0.6.2 --hash=sha256:49b3a825280bd66b3aa83585ef59c4a8c82f2c8a522dbe754a8bc8d08c85c491\n"
    version, mark = environment.python_version, uuid.uuid4().hex
    first, second = (spec_of(f"# {mark} {number}\n{pin}", version) for number in (1, 2))
    try:
        before = fresh.disk_use().cache_bytes
        assert fresh.materialise(first).built
        assert asked == ["wheels", "wheel", "wheels"]
        (wheel,) = fresh.images.wheels_folder.rglob("*.whl")
        assert fresh.disk_use().cache_bytes >= before + wheel.stat().st_size
        assert fresh.materialise(second).built
        assert asked[3:] == ["wheels"]
        with opened(fresh, second, tmp_path) as sandbox:
            assert printed(python(sandbox, "import docopt; print(docopt.__file__)")).startswith("/opt/env/")
            assert (
                sandbox.run(["/usr/bin/find", "/lock", "/out", "-type", "f"], timeout_s=30).output.count(b".whl") == 0
            )
    finally:
        for spec in (first, second):
            fresh.evict(spec.digest)


def test_a_package_name_that_is_none_is_refused_before_any_build(
    backend: DockerBackend, environment: EnvironmentSpec
) -> None:
    hostile = replace(spec_of("", environment.python_version), system_packages=("gcc; touch /pwned",))
    with pytest.raises(Rejected) as caught:
        backend.materialise(hostile)
    assert caught.value.reason is RejectReason.BUILD_FAILED


def test_a_process_that_kills_its_supervisor_is_ended_all_the_same(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    code = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); os.kill(os.getppid(), 0)\n"
        "    for n in range(600):\n"
        "        open('/testbed/beat', 'a').write('x'); time.sleep(0.05)\n"
        "time.sleep(0.3); os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)\n"
    )
    with opened(backend, environment, tmp_path) as sandbox:
        result = python(sandbox, code, timeout_s=2)
        assert result.exit_code != 0
        before = len(sandbox.read("/testbed/beat"))
        time.sleep(0.5)
        assert len(sandbox.read("/testbed/beat")) == before > 0


def test_a_supervisor_that_is_stopped_does_not_stop_us(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGSTOP); time.sleep(600)"
    with opened(backend, environment, tmp_path) as sandbox:
        result = python(sandbox, code, timeout_s=1)
        assert (result.timed_out, result.exit_code) == (True, None)
        assert sandbox.run(["/bin/echo", "alive"], timeout_s=30).output == b"alive\n"


def test_running_out_of_memory_is_told(backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path) -> None:
    with opened(backend, environment, tmp_path, SMALL) as sandbox:
        result = python(sandbox, "x = bytearray(b'x') * (600 << 20)", timeout_s=60)
        assert (result.exit_code, result.out_of_memory) == (137, True)
        assert not python(sandbox, "raise SystemExit(3)").out_of_memory


def test_a_shell_outlives_the_runs_beside_it(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    with opened(backend, environment, tmp_path) as sandbox:
        beat = "(setsid sh -c 'while :; do echo x >> /tmp/beat; sleep 0.05; done' >/dev/null 2>&1 &); sleep 100"
        command = [*sandbox.shell_argv()[:-3], "-c", beat]
        process, master = spawn(command)
        try:
            for _ in range(50):
                with contextlib.suppress(FileNotFoundError):
                    sandbox.read("/tmp/beat")
                    break
                time.sleep(0.1)
            before = len(sandbox.read("/tmp/beat"))
            assert sandbox.run(["/bin/true"], timeout_s=30).exit_code == 0
            time.sleep(0.5)
            assert len(sandbox.read("/tmp/beat")) > before
        finally:
            process.kill()
            process.wait(10)
            os.close(master)


def test_credentials_of_an_index_never_travel_with_the_build_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"https://somebody:{PLANTED}@index.invalid/simple")
    monkeypatch.setenv("UV_INDEX_OURS_PASSWORD", PLANTED)
    lay_out(tmp_path, "bookworm")
    sent = b"".join(path.read_bytes() for path in (tmp_path / "host").rglob("*") if path.is_file())
    assert PLANTED.encode() not in sent
    assert b"https://index.invalid/simple" in sent
    assert (tmp_path / "index.env").read_text().count(PLANTED) == 2


def test_settings_of_builds_are_those_another_machine_has_laid_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://there.invalid/simple")
    write_build_settings(tmp_path / "given", "bookworm")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://here.invalid/simple")
    images = DockerBackend(tmp_path / "home", build_settings=tmp_path / "given").images
    with images.context() as context:
        assert "there.invalid" in (context / "host" / "settings.env").read_text()
    with pytest.raises(UsageError, match="images bootstrap --cluster"):
        DockerBackend(tmp_path / "home", build_settings=tmp_path).images.lay_out(tmp_path / "context")


# ---------------------------------------------------------------- leftovers


@pytest.fixture
def leftovers(backend: DockerBackend, environment: EnvironmentSpec) -> Iterator[dict[str, str]]:
    """Containers of a dead owner: ours, another home's, and one without any label."""
    api, image = backend.engine.api, backend.materialise(environment).locator
    ours = {"swefactory": "1", "swefactory.job": "77.1", "swefactory.home": backend.home}
    labels = {"ours": ours, "another home's": {**ours, "swefactory.home": "elsewhere"}, "a stranger's": {}}
    made = {name: api.create_container(image, ["true"], labels=each)["Id"] for name, each in labels.items()}
    yield made
    for container_id in made.values():
        with contextlib.suppress(Exception):
            api.remove_container(container_id, force=True)


def test_a_sweep_removes_only_what_carries_this_homes_labels(backend: DockerBackend, leftovers: dict[str, str]) -> None:
    assert backend.sweep(lambda label: label != "77.1") == 1
    here = {each["Id"] for each in backend.engine.api.containers(all=True)}
    assert {name for name, container_id in leftovers.items() if container_id in here} == {
        "another home's",
        "a stranger's",
    }


def test_nothing_is_left_of_a_closed_sandbox(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    label = f"closed.{uuid.uuid4().hex[:8]}"
    with pytest.raises(ZeroDivisionError), opened(backend, environment, tmp_path, label=label):
        raise ZeroDivisionError
    assert backend.engine.api.containers(all=True, filters={"label": f"swefactory.job={label}"}) == []


# ---------------------------------------------------------------- set-up


def test_an_engine_that_does_not_answer_is_named_with_what_to_do(tmp_path: Path) -> None:
    why = DockerBackend(tmp_path, docker_host=f"unix://{tmp_path}/none.sock").probe()
    assert why is not None
    assert "none.sock" in why
    assert "start it" in why


def test_a_missing_base_image_names_the_command_that_makes_it(backend: DockerBackend, tmp_path: Path) -> None:
    pins = replace(load_pins(), base_image="swefactory/base:never-made", python_image="swefactory/python-never-made")
    bare = DockerBackend(tmp_path, pins=pins)
    assert "swefactory images bootstrap" in str(bare.probe())
    with pytest.raises(SandboxUnavailable, match="swefactory images bootstrap"):
        bare.materialise(spec_of("", next(iter(backend.pythons()))))


def test_bootstrapping_twice_changes_nothing(backend: DockerBackend) -> None:
    said: list[str] = []
    made = bootstrap_images(backend, versions=["3.12"] if "3.12" in backend.pythons() else [], progress=said.append)
    assert [each.made for each in bootstrap_images(backend, versions=[])] == [False]
    assert made[0].name == load_pins().base_image
    assert 0 < made[0].size_bytes < 600 * 10**6
    assert any("stood already" in line for line in said)


def test_a_root_file_system_that_is_not_there_is_the_callers_fault(backend: DockerBackend, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        bootstrap_images(backend, versions=[], source=BootstrapSource(root_tar=tmp_path / "none.tar"))
    with pytest.raises(UsageError, match="not from both"):
        bootstrap_images(backend, versions=[], source=BootstrapSource(tmp_path / "none.tar", "some/image"))


def test_a_base_image_per_python_is_used_as_it_is_named(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    """As with python:3.12-bookworm from a registry: the interpreter is the image's own."""
    version = environment.python_version
    made = backend.materialise(environment)
    name = f"swefactory/test-python-{uuid.uuid4().hex[:8]}"
    context = tmp_path / "context"
    context.mkdir()
    python_name, program, _ = backend.images.python(version)
    (context / "Dockerfile").write_text(f"FROM {python_name}\nRUN cp -a {Path(program).parents[1]}/. /usr/local\n")
    build = ["docker", "build", "-q", "-t", f"{name}:{version}-bookworm", "--label", "swefactory=1", str(context)]
    subprocess.run(build, check=True, capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    given = DockerBackend(tmp_path, base_image=name + ":{version}-bookworm")
    fresh = replace(environment, digest=f"sha256:{uuid.uuid4().hex * 2}")
    try:
        assert version in given.pythons()
        with opened(given, fresh, tmp_path) as sandbox:
            assert printed(python(sandbox, "import iniconfig, sys; print(sys.version_info[0])")) == "3\n"
    finally:
        for image in (
            given.images.environment_name(fresh),
            given.images.python(version)[0],
            f"{name}:{version}-bookworm",
        ):
            given.engine.api.remove_image(image, force=True)
    assert made.locator.startswith("swefactory/env:")


def test_a_base_image_that_no_registry_gives_says_what_to_do(backend: DockerBackend, tmp_path: Path) -> None:
    strange = DockerBackend(tmp_path, base_image="swefactory.invalid/nothing:1")
    with pytest.raises(SandboxUnavailable, match="SWEFACTORY_DOCKER_BASE_IMAGE"):
        strange.materialise(spec_of("", next(iter(backend.pythons()))))


def test_no_template_needs_a_syntax_that_only_a_registry_gives() -> None:
    for name in ("base.Dockerfile", "python.Dockerfile", "python-env.Dockerfile", "uv.Dockerfile"):
        text = image_file(name).read_text()
        assert "syntax=" not in text
        assert "<<" not in text


def test_a_file_outside_the_checkout_never_enters_through_a_link(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(PLANTED)
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "link").symlink_to(tmp_path / "secret")
    with opened(backend, environment, tmp_path) as sandbox:
        assert printed(sandbox.run(["/usr/bin/readlink", "link"], timeout_s=30)).strip() == str(tmp_path / "secret")
        with pytest.raises((FileNotFoundError, InfrastructureError)):
            sandbox.read(f"{CHECKOUT_DIR}/link")


# ---------------------------------------------------------------- disk, and a registry


def test_a_saved_image_holds_nothing_of_this_machines_network(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer is searched, also for what a later one removed: addresses of indexes and of Debian's archive, the
    host's certificates, credentials."""
    monkeypatch.setenv("UV_INDEX_OURS_PASSWORD", PLANTED)
    monkeypatch.setenv("NO_PROXY", "planted-no-proxy.invalid")
    links = tmp_path / "planted-links"
    links.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(links))
    fresh = replace(environment, digest=f"sha256:{uuid.uuid4().hex * 2}")
    name = backend.materialise(fresh).locator
    settings = network_settings(with_secrets=True).env
    sought = [PLANTED.encode(), b"planted-no-proxy.invalid", str(links).encode()]
    sought += [line.encode() for line in debian_sources(backend.images.pins.suite)]
    sought += [value.encode() for key, value in settings.items() if "INDEX" in key and "://" in value]
    sought += own_certificates()
    saved = tmp_path / "saved.tar"
    with saved.open("wb") as file:
        subprocess.run(["docker", "save", name], check=True, stdout=file)
    found = [needle[:60] for needle in sought if contains(saved, needle)]
    assert found == []
    assert contains(saved, b"iniconfig")  # the search itself works


def own_certificates() -> list[bytes]:
    """A line of each certificate that this machine trusts and Debian's package does not bring."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt").read_text() if Path("/etc/ssl/certs").is_dir() else ""
    shipped = "".join(path.read_text() for path in Path("/usr/share/ca-certificates").rglob("*.crt"))
    lines = [block.split()[1] for block in bundle.split("BEGIN CERTIFICATE-----")[1:]]
    return [line.encode() for line in lines if line not in shipped]


def contains(path: Path, needle: bytes) -> bool:
    return subprocess.run(["grep", "-qaF", "--", needle, str(path)]).returncode == 0


def test_sizes_are_told_apart_and_an_eviction_frees_what_was_its_own(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    # Of packages that no other test asks for: the same ones would be the same layer.
    spec = resolved(backend, environment.python_version, "pretend", "zipp", as_of="2024-03-01T00:00:00Z")
    made = backend.materialise(spec)
    assert 0 < made.unique_bytes < 20 * 2**20 < made.shared_bytes
    before = backend.disk_use()
    (stored,) = [each for each in before.environments if each.digest == spec.digest]
    assert (stored.locator, stored.unique_bytes) == (made.locator, made.unique_bytes)
    assert before.base_bytes > 100 * 2**20
    with opened(backend, spec, tmp_path):
        assert not backend.evict(spec.digest)
    assert backend.evict(spec.digest)
    assert not backend.evict(spec.digest)
    assert backend.engine.image(made.locator) is None


def test_an_eviction_never_touches_another_homes_image(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    name = backend.materialise(environment).locator
    other = DockerBackend(tmp_path)
    assert environment.digest not in {each.digest for each in other.disk_use().environments}
    assert not other.evict(environment.digest)
    assert backend.engine.image(name) is not None


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of our own on loopback, empty."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (Debian: apt install docker-registry)")
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with subprocess.Popen(
        [program, "serve", str(folder / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}/team"
        finally:
            process.terminate()
            process.wait(30)


def test_an_environment_goes_through_a_registry_and_is_not_built_again(
    backend: DockerBackend, environment: EnvironmentSpec, registry: str, tmp_path: Path
) -> None:
    spec = spec_of("# shared\n" + environment.lock, environment.python_version)
    name = backend.materialise(spec).locator
    ImageRegistry(backend.engine, registry).push(name)
    there = backend.engine.image(name)
    assert backend.evict(spec.digest)
    assert backend.engine.image(name) is None
    other = DockerBackend(tmp_path / "other", registry=registry)
    with opened(other, spec, tmp_path) as sandbox:
        assert printed(python(sandbox, "import iniconfig; print(1)")) == "1\n"
    again = other.materialise(spec)
    assert (again.built, again.locator) == (False, name)
    pulled = other.engine.image(name)
    assert pulled is not None
    assert there is not None
    assert pulled.id == there.id
    assert spec.digest in {each.digest for each in other.disk_use().environments}
    assert other.evict(spec.digest)
    assert other.engine.image(name) is None


def test_an_image_that_is_another_environment_is_refused(
    backend: DockerBackend, environment: EnvironmentSpec, registry: str, tmp_path: Path
) -> None:
    spec = spec_of("# expected\n" + environment.lock, environment.python_version)
    shared = ImageRegistry(backend.engine, registry)
    wrong, _, tag = shared.there(backend.images.environment_name(spec)).rpartition(":")
    backend.engine.api.tag(backend.materialise(environment).locator, wrong, tag)
    assert backend.engine.push(f"{wrong}:{tag}", 120) is None
    backend.engine.remove_image(f"{wrong}:{tag}")
    with pytest.raises(InfrastructureError, match="is not the environment"):
        DockerBackend(tmp_path, registry=registry).materialise(spec)
    assert backend.engine.image(f"{wrong}:{tag}") is None


def test_a_registry_that_does_not_answer_leaves_the_build(
    backend: DockerBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    spec = spec_of("# alone\n" + environment.lock, environment.python_version)
    alone = DockerBackend(tmp_path, registry=f"127.0.0.1:{free_port()}/team")
    try:
        assert alone.materialise(spec).built
    finally:
        alone.evict(spec.digest)


def test_what_stands_is_told_for_the_pins(backend: DockerBackend) -> None:
    found = what_stands(backend.images)
    assert set(found.packages) == set(backend.images.pins.base_packages)
    assert found.root.startswith("sha256:")
    assert all(full.startswith(f"{minor}.") for minor, full in found.pythons.items())
