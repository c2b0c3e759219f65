"""The namespace sandbox passes the contract; and what is its own: refusals, watchdogs, builds of source packages."""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected, SandboxUnavailable
from swefactory.sandbox_protocols import PYTHON, EnvironmentSpec, SandboxSpec
from swefactory.sandboxes import watchdogs
from swefactory.sandboxes.namespace import NamespaceBackend
from swefactory.sandboxes.seccomp import filter_program
from swefactory.sandboxes.shared_files import SAME_TIME_S
from swefactory.sandboxes.strays import strays
from tests.sandbox_contract import LOCK, SandboxContract, locked_environment, spec_of


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("namespace")


@pytest.fixture(scope="module")
def backend(cache: Path) -> NamespaceBackend:
    made = NamespaceBackend(cache, extra_interpreter_folders=(), build_timeout_s=300)
    if why := made.probe():
        pytest.skip(f"no namespace sandbox here: {why}")
    return made


@pytest.fixture(scope="module")
def environment(backend: NamespaceBackend) -> EnvironmentSpec:
    return locked_environment(backend)


class TestNamespaceSandbox(SandboxContract):
    """The whole contract, with control groups where they can be written."""


class TestWithoutControlGroups:
    """What control groups do is done by watchdogs where an ordinary user cannot have them."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, cache: Path) -> NamespaceBackend:
        made = NamespaceBackend(cache, extra_interpreter_folders=(), build_timeout_s=300, use_control_groups=False)
        if why := made.probe():
            pytest.skip(f"no namespace sandbox here: {why}")
        return made

    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls, backend: NamespaceBackend) -> EnvironmentSpec:
        return locked_environment(backend)

    source = SandboxContract.source
    opener = SandboxContract.opener
    test_memory = SandboxContract.test_a_memory_bomb_is_stopped
    test_many_processes = SandboxContract.test_many_small_processes_share_one_memory_limit
    test_forks = SandboxContract.test_a_fork_bomb_stays_within_the_limit


def test_nothing_is_left_of_closed_sandboxes(backend: NamespaceBackend, cache: Path) -> None:
    assert [path.name for path in (cache / "sandboxes").glob("*~*")] == []
    assert [path.name for path in (cache / "sandboxes").glob("*.json")] == []
    assert [path.name for path in (cache / "uv" / ".parts").glob("*")] == []
    groups = [path for path in Path("/sys/fs/cgroup").glob("**/swefactory/contract.*") if path.is_dir()]
    assert groups == []


def test_what_a_command_says_while_the_disk_is_full_is_no_answer(
    backend: NamespaceBackend, environment: EnvironmentSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout := tmp_path / "checkout").mkdir()
    with backend.open(SandboxSpec(environment, checkout)) as sandbox:
        asked = ["/bin/sh", "-c", "sleep 0.5; echo said; sleep 1; rm full; sleep 1"]

        def look(disk: watchdogs.FullDisk) -> None:
            disk.was_seen |= (disk.folder / "testbed" / "full").exists()

        sandbox.write("/testbed/full", b"")
        monkeypatch.setattr(watchdogs.FullDisk, "look", look)
        with pytest.raises(InfrastructureError, match="was full while a sandbox's command ran"):
            sandbox.run(asked, timeout_s=30)  # full at first only
        assert sandbox.run(["true"], timeout_s=30).exit_code == 0


def test_a_disk_is_full_when_nothing_is_left_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = watchdogs.FullDisk(tmp_path)
    disk.look()
    assert not disk.was_seen
    monkeypatch.setattr(watchdogs, "_ROOM_BYTES", os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize + 1)
    disk.look()
    monkeypatch.undo()
    disk.look()
    assert disk.was_seen, "it is remembered"


def test_without_bubblewrap_it_refuses_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: EnvironmentSpec
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    backend = NamespaceBackend(tmp_path / "cache", extra_interpreter_folders=(), build_timeout_s=60)
    why = backend.probe()
    # Where the set-up has put bubblewrap beside our interpreter, it is the next program that is missing.
    package = "util-linux" if Path(sys.executable).with_name("bwrap").exists() else "bubblewrap"
    assert why is not None
    assert f"install the system's package {package}" in why
    with pytest.raises(SandboxUnavailable, match=package), backend.open(SandboxSpec(environment, tmp_path)):
        pytest.fail("it opened")


def test_folders_that_only_their_maker_may_enter_can_be_handed_in(
    backend: NamespaceBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    for name in ("checkout", "inputs"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "file").write_text(name)
        (tmp_path / name / "file").chmod(0o600)
    spec = SandboxSpec(environment, tmp_path / "checkout", inputs=tmp_path / "inputs")
    before = os.umask(0o077)
    try:
        with backend.open(spec) as sandbox:
            result = sandbox.run(["/bin/cat", "/testbed/file", "/opt/inputs/file"], timeout_s=30)
            who = sandbox.run(["/usr/bin/id", "-un"], timeout_s=30)
    finally:
        os.umask(before)
    assert result.output == b"checkoutinputs"
    assert who.output == b"sandbox\n"


def test_packages_beside_the_interpreter_are_not_seen(
    backend: NamespaceBackend, environment: EnvironmentSpec, tmp_path: Path
) -> None:
    code = "import os, sys, glob; print(glob.glob(sys.base_prefix + '/lib/python*/*-packages/*'))"
    with backend.open(SandboxSpec(environment, tmp_path)) as sandbox:
        assert sandbox.run([PYTHON, "-c", code], timeout_s=30).output == b"[]\n"
        assert sandbox.run(["/bin/sh", "-c", "ls /usr/lib/python3/dist-packages"], timeout_s=30).output in (
            b"",
            b"ls: cannot access '/usr/lib/python3/dist-packages': No such file or directory\n",
        )


def test_an_unlabelled_sandbox_lives_as_long_as_its_process(
    backend: NamespaceBackend, environment: EnvironmentSpec, tmp_path: Path, cache: Path
) -> None:
    left = cache / "sandboxes" / "~deadbeef"
    (left / "testbed").mkdir(parents=True)
    with backend.open(SandboxSpec(environment, tmp_path)) as sandbox:
        assert backend.sweep(lambda label: False) == 1
        assert sandbox.run(["/bin/echo", "alive"], timeout_s=30).output == b"alive\n"
    assert not left.exists()


_OPEN_AND_SLEEP = """
import json, pathlib, sys
from swefactory.sandbox_protocols import EnvironmentSpec, SandboxSpec
from swefactory.sandboxes.namespace import NamespaceBackend
cache, environment, checkout, mark = sys.argv[1:]
backend = NamespaceBackend(pathlib.Path(cache), extra_interpreter_folders=(), build_timeout_s=60)
spec = SandboxSpec(EnvironmentSpec(**json.loads(environment)), pathlib.Path(checkout), label="903.1")
with backend.open(spec) as sandbox:
    sandbox.write("/tmp/ready", b"")
    print("ready", flush=True)
    sandbox.run(["/bin/sh", "-c", "setsid sleep %s & sleep %s" % (mark, mark)], timeout_s=600)
"""


def test_a_killed_owner_takes_its_commands_along_and_a_sweep_clears_the_rest(
    backend: NamespaceBackend, environment: EnvironmentSpec, tmp_path: Path, cache: Path
) -> None:
    mark = f"98765.{os.getpid()}"
    argv = [sys.executable, "-c", _OPEN_AND_SLEEP, str(cache), json.dumps(asdict(environment)), str(tmp_path), mark]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert _eventually(lambda: len(_running(mark)) >= 2)
        process.kill()
    assert _eventually(lambda: not _running(mark))
    assert backend.sweep(lambda label: label != "903.1") == 1
    assert list((cache / "sandboxes").glob("903.1~*")) == []


def test_what_a_bubblewrap_killed_at_its_start_leaves_is_ended_by_a_sweep(
    backend: NamespaceBackend, cache: Path
) -> None:
    gate, opened = os.pipe()  # it waits at this gate where it may be killed at any time
    (cache / "sandboxes").mkdir(exist_ok=True)
    with (cache / "sandboxes" / "held").open("wb") as held, open(os.devnull, "wb") as info:
        starter = subprocess.Popen(
            ["bwrap", "--unshare-user", "--unshare-pid", "--die-with-parent", "--userns-block-fd", str(gate),
             "--info-fd", str(info.fileno()), "--ro-bind", "/", "/", "true"],
            pass_fds=[gate, held.fileno(), info.fileno()], start_new_session=True,
        )  # fmt: skip
    children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children")
    assert _eventually(lambda: children.read_text() != "")
    assert list(strays(cache)) == [], "it still has its starter"
    starter.kill()
    starter.wait()
    assert len(list(strays(cache))) == 1
    assert len(list(strays(cache / "environments"))) == 0
    backend.sweep(lambda _: True)
    assert _eventually(lambda: list(strays(cache)) == [])
    os.close(gate)
    os.close(opened)


def _running(mark: str) -> list[str]:
    """Processes that sleep for `mark` seconds."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{mark}\0".encode():
                found.append(path.parent.name)
    return found


def _eventually(holds: Callable[[], bool], timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_the_filter_is_known_for_the_two_common_machines() -> None:
    for machine in ("x86_64", "aarch64"):
        program = filter_program(machine)
        assert program is not None
        assert len(program) % 8 == 0
    assert filter_program("pdp11") is None


# ---------------------------------------------------------------- source distributions: other people's code, at build

_BACKEND = """
import base64, hashlib, os, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    {act}
    name = "sourcely-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("sourcely.py", "SEEN = %r" % (seen,))
        wheel.writestr("sourcely-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: sourcely\\nVersion: 1.0\\n")
        tags = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("sourcely-1.0.dist-info/WHEEL", tags)
        wheel.writestr("sourcely-1.0.dist-info/RECORD", "sourcely.py,,\\n")
    return name
"""
_HONEST = f"seen = [sorted(os.environ), os.getuid(), os.path.exists({__file__!r}), os.listdir('/opt')]"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of source distributions that uv looks into; no registry is asked for a package found there."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_OFFLINE", "1")
    return folder


def source_lock(index: Path, act: str) -> str:
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "sourcely"\nversion = "1.0"\n',
        "PKG-INFO": "Metadata-Version: 2.1\nName: sourcely\nVersion: 1.0\n",
        "backend.py": _BACKEND.replace("{act}", act),
    }
    path = index / "sourcely-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"sourcely-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return f"sourcely==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_a_source_package_is_built_without_a_secret_in_sight(
    backend: NamespaceBackend,
    environment: EnvironmentSpec,
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV_INDEX_OURS_PASSWORD", "sk-TEST-planted")
    monkeypatch.setenv("SECRET", "sk-TEST-planted")
    spec = spec_of(source_lock(index, _HONEST), environment.python_version)
    assert backend.materialise(spec).built
    (tmp_path / "checkout").mkdir()
    with backend.open(SandboxSpec(spec, tmp_path / "checkout")) as sandbox:
        result = sandbox.run([PYTHON, "-c", "import sourcely; print(*sourcely.SEEN, sep='|')"], timeout_s=30)
    names, uid, sees_host, opt = result.output.decode().strip().split("|")
    assert "SECRET" not in names
    assert "PASSWORD" not in names
    assert (uid, sees_host) == ("1000", "False")
    assert "env" not in opt


@pytest.mark.parametrize("forged", ["sdists-v0/x/sourcely-2.0-py3-none-any.whl", "sdists-v0/x/sourcely-9.whl"])
def test_a_build_that_leaves_more_than_its_own_wheel_is_rejected(
    backend: NamespaceBackend, environment: EnvironmentSpec, index: Path, forged: str
) -> None:
    act = f"p = '/opt/store/cache/{forged}'; os.makedirs(os.path.dirname(p)); open(p, 'w').close(); seen = []"
    with pytest.raises(Rejected, match="left no wheel, or more than one") as caught:
        backend.materialise(spec_of(source_lock(index, act), environment.python_version))
    assert caught.value.reason is RejectReason.BUILD_FAILED


def test_a_build_that_puts_a_link_in_place_of_its_cache_is_rejected(
    backend: NamespaceBackend, environment: EnvironmentSpec, index: Path
) -> None:
    act = "os.rename('/opt/store/cache', '/opt/store/was'); os.symlink('/opt/store/was', '/opt/store/cache'); seen = []"
    with pytest.raises(Rejected, match="something else in place") as caught:
        backend.materialise(spec_of(source_lock(index, act), environment.python_version))
    assert caught.value.reason is RejectReason.BUILD_FAILED


def test_a_build_cannot_answer_for_another_package(
    backend: NamespaceBackend, environment: EnvironmentSpec, index: Path, tmp_path: Path
) -> None:
    """Neither with a wheel in its cache, nor with byte code or a module in the environment it was built in."""
    act = (
        "import glob; seen = []\n"
        "    p = '/opt/store/cache/sdists-v0/x/iniconfig-2.0.0-py3-none-any.whl'\n"
        "    os.makedirs(os.path.dirname(p)); open(p, 'w').close()\n"
        "    site, = glob.glob('/opt/store/env/lib/python*/site-packages')\n"
        "    open(site + '/iniconfig.py', 'w').write('forged = True')"
    )
    spec = spec_of(source_lock(index, act) + LOCK, environment.python_version)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UV_OFFLINE")
        assert backend.materialise(spec).built
    (tmp_path / "checkout").mkdir()
    with backend.open(SandboxSpec(spec, tmp_path / "checkout")) as sandbox:
        code = "import iniconfig, sourcely; print(iniconfig.__file__, hasattr(iniconfig, 'forged'))"
        result = sandbox.run([PYTHON, "-c", code], timeout_s=30)
    assert result.output.decode().strip().endswith("/iniconfig/__init__.py False")


def test_a_built_wheel_and_byte_code_are_shared_with_the_next_environment(
    backend: NamespaceBackend, index: Path
) -> None:
    """Into environments of older Pythons uv writes a module of its own, anew for each."""
    minors = sorted(int(version[2:]) for version in backend.pythons() if version.startswith("3."))
    oldest = next(f"3.{minor}" for minor in minors if minor >= 7)
    lock = source_lock(index, "import uuid; seen = uuid.uuid4().hex")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UV_OFFLINE")
        first, second = (
            Path(backend.materialise(spec_of(text, oldest)).locator, "env", "lib") for text in (lock, lock + LOCK)
        )
    shared = [path.relative_to(first) for pattern in ("*.pyc", "sourcely.py") for path in first.rglob(pattern)]
    assert {"sourcely.py", "__pycache__"} <= {part for path in shared for part in path.parts}
    assert [path for path in shared if not (first / path).samefile(second / path)] == []
    assert {path.stat().st_mtime for path in second.rglob("*.py")} == {SAME_TIME_S}


def test_a_build_that_fails_is_a_verdict_with_its_own_words(
    backend: NamespaceBackend, environment: EnvironmentSpec, index: Path
) -> None:
    spec = spec_of(source_lock(index, "raise SystemExit('no compiler today')"), environment.python_version)
    with pytest.raises(Rejected, match="no compiler today") as caught:
        backend.materialise(spec)
    assert caught.value.reason is RejectReason.BUILD_FAILED
