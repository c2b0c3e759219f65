"""What every sandbox must do, as one suite. A backend passes it or does not run untrusted code.

Subclass SandboxContract in a test file and give two fixtures: `backend`, the SandboxBackend under test, and
`environment`, an EnvironmentSpec it can materialise (see `locked_environment`). Nothing here knows the backend.
"""

import contextlib
import hashlib
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

import swefactory.inputs as swefactory_inputs
from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected
from swefactory.sandbox_protocols import (
    CHECKOUT_DIR,
    ENVIRONMENT_DIR,
    INPUTS_DIR,
    PROJECT_DIR,
    PYTHON,
    RESULTS_DIR,
    CommandResult,
    EnvironmentSpec,
    Limits,
    Materialised,
    Sandbox,
    SandboxBackend,
    SandboxSpec,
)
from swefactory.sandboxes.extensions import ExtensionBuild, build_extensions

MIB = 2**20
SMALL = Limits(
    memory_bytes=256 * MIB,
    n_processes=64,
    n_cpus=1.0,
    file_bytes=8 * MIB,
    disk_bytes=48 * MIB,
    output_bytes=256 * 1024,
)
ROOMY = Limits(memory_bytes=512 * MIB, n_processes=128, disk_bytes=256 * MIB, output_bytes=2 * MIB)
LOCK = (
    "iniconfig==2.0.0 \\\n"
    "    --hash=sha256:2d91e135bf72d31a410b17c16da610a82cb55f6b0477d1a902134b24a455b8b3 \\\n"
    "    --hash=sha256:b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374\n"
)

Opener = Callable[..., AbstractContextManager[Sandbox]]


def spec_of(lock: str, python_version: str) -> EnvironmentSpec:
    digest = hashlib.sha256(f"{python_version}\n{lock}".encode()).hexdigest()
    return EnvironmentSpec(digest=f"sha256:{digest}", python_version=python_version, lock=lock)


def locked_environment(backend: SandboxBackend) -> EnvironmentSpec:
    """A tiny environment (iniconfig alone) on an interpreter that the backend has."""
    offered = backend.pythons()
    for version in ("3.12", "3.11", "3.13", "3.10", "3.9"):
        if version in offered:
            return spec_of(LOCK, version)
    pytest.skip(f"no Python of 3.9 to 3.13 here, only {', '.join(offered) or 'none'}")


def resolved(backend: SandboxBackend, version: str, *requirements: str, as_of: str) -> EnvironmentSpec:
    """What the requirements come to as of a day, with the bound for what builds them."""
    if version not in backend.pythons():
        pytest.skip(f"no Python {version} here")
    run = backend.run_uv(
        ["pip", "compile", "in", "--output-file", "out", "--exclude-newer", as_of, "--generate-hashes", "--quiet",
         "--exclude-newer-package=atomicwrites=2022-07-09T00:00:00Z", "--no-header", "--no-annotate"],
        files={"in": "".join(f"{line}\n" for line in requirements)},
        writes="out", python_version=version, timeout_s=300,
    )  # fmt: skip
    assert run.written is not None, run.result
    return spec_of(f"# exclude-newer: {as_of}\n{run.written.decode()}", version)


C_SOURCE = """
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_speed", NULL, -1, methods};
PyMODINIT_FUNC PyInit__speed(void) { return PyModule_Create(&module); }
"""


def c_project(tree: Path, layout: str) -> Path:
    """A checkout with an extension module in C."""
    package = tree / layout / "quick"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "_speed.c").write_text(C_SOURCE)
    source = f"{layout}/quick/_speed.c".removeprefix("./")
    (tree / "setup.py").write_text(
        "from setuptools import Extension, setup\n"
        f"setup(name='quick', version='1', packages=['quick'], package_dir={{'': {layout!r}}},\n"
        f"      ext_modules=[Extension('quick._speed', [{source!r}])])\n"
    )
    return tree


_PROBING = """
import os, socket, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    reached = []
    for target in (("127.0.0.1", {port}), ("10.0.2.2", {port}), ("localhost", {port})):
        try:
            socket.create_connection(target, 3)
            reached.append(target)
        except OSError:
            pass
    name = "probing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("probing.py", "REACHED = %r" % (reached,))
        wheel.writestr("probing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: probing\\nVersion: 1.0\\n")
        wheel.writestr("probing-1.0.dist-info/WHEEL",
                       "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("probing-1.0.dist-info/RECORD", "probing.py,,\\n")
    return name
"""


def probing_package(folder: Path, port: int) -> str:
    """A source distribution in `folder` whose build looks for a server of this machine; its lock."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "probing"\nversion = "1.0"\n',
        "PKG-INFO": "Metadata-Version: 2.1\nName: probing\nVersion: 1.0\n",
        "backend.py": _PROBING.replace("{port}", str(port)),
    }
    path = folder / "probing-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"probing-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return f"probing==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def python(sandbox: Sandbox, code: str, timeout_s: float = 30, env: dict[str, str] | None = None) -> CommandResult:
    return sandbox.run([PYTHON, "-c", code], timeout_s=timeout_s, env=env)


def printed(result: CommandResult) -> str:
    assert result.exit_code == 0, result
    return result.output.decode()


class SandboxContract:
    """The suite. Tests that cannot disturb each other share the sandbox `shared`; the others open their own."""

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A checkout as the stages make one, and beside it what else is handed in."""
        base = tmp_path_factory.mktemp("source")
        (base / "checkout" / "pkg").mkdir(parents=True)
        (base / "checkout" / "pkg" / "__init__.py").write_text("ANSWER = 42\n")
        (base / "checkout" / "run.sh").write_text("#!/bin/sh\necho script\n")
        (base / "checkout" / "run.sh").chmod(0o755)
        (base / "checkout" / "link").symlink_to("pkg/__init__.py")
        metadata = base / "project" / "sample_project-1.2.3.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-project\nVersion: 1.2.3\n")
        (metadata / "RECORD").write_text("")
        (base / "project" / "project.pth").write_text(f"{CHECKOUT_DIR}\n")
        (base / "project" / "bin").mkdir()
        (base / "project" / "bin" / "sample-tool").write_text("#!/bin/sh\necho tool\n")
        (base / "project" / "bin" / "sample-tool").chmod(0o755)
        (base / "inputs").mkdir()
        (base / "inputs" / "ids.txt").write_text("test_a\n")
        return base

    @pytest.fixture(scope="class")
    @classmethod
    def opener(cls, backend: SandboxBackend, environment: EnvironmentSpec, source: Path) -> Opener:
        def open_one(limits: Limits = ROOMY, label: str = "") -> AbstractContextManager[Sandbox]:
            return backend.open(
                SandboxSpec(
                    environment=environment,
                    checkout=source / "checkout",
                    project=source / "project",
                    inputs=source / "inputs",
                    limits=limits,
                    label=label or f"contract.{uuid.uuid4().hex[:8]}",
                )
            )

        return open_one

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, opener: Opener) -> Iterator[Sandbox]:
        with opener() as sandbox:
            yield sandbox

    # ------------------------------------------------------------ running

    def test_a_command_answers_with_its_exit_code_and_both_outputs_in_order(self, shared: Sandbox) -> None:
        result = shared.run(["/bin/sh", "-c", "echo one; echo two >&2; echo three; exit 7"], timeout_s=30)
        assert (result.exit_code, result.output) == (7, b"one\ntwo\nthree\n")
        assert (result.timed_out, result.truncated, result.out_of_memory) == (False, False, False)

    def test_a_signal_is_told_as_128_and_its_number(self, shared: Sandbox) -> None:
        assert shared.run(["/bin/sh", "-c", "kill -TERM $$"], timeout_s=30).exit_code == 143

    def test_a_missing_program_is_the_commands_fault(self, shared: Sandbox) -> None:
        assert shared.run(["/no/such/program"], timeout_s=30).exit_code not in (0, None)

    def test_environment_folder_and_input_reach_the_command(self, shared: Sandbox) -> None:
        argv = ["/bin/sh", "-c", 'echo "$GREETING"; pwd; cat']
        result = shared.run(argv, timeout_s=30, env={"GREETING": "good day"}, cwd="/tmp", stdin=b"from outside")
        assert result.output == b"good day\n/tmp\nfrom outside"

    def test_a_command_starts_in_the_checkout_with_an_empty_input(self, shared: Sandbox) -> None:
        assert shared.run(["/bin/sh", "-c", "pwd; cat"], timeout_s=30).output == f"{CHECKOUT_DIR}\n".encode()

    def test_large_input_and_binary_output_pass_unharmed(self, shared: Sandbox) -> None:
        blob = bytes(range(256)) * 2048
        assert shared.run(["/bin/cat"], timeout_s=30, stdin=blob).output == blob

    def test_the_path_finds_the_project_then_the_environment(self, shared: Sandbox) -> None:
        script = "command -v python; sample-tool; ./run.sh"
        assert shared.run(["/bin/sh", "-c", script], timeout_s=30).output == f"{PYTHON}\ntool\nscript\n".encode()

    def test_standard_streams_can_be_opened_by_name(self, shared: Sandbox) -> None:
        result = shared.run(["/bin/sh", "-c", "echo a > /dev/stdout; echo b > /dev/stderr"], timeout_s=30)
        assert (result.exit_code, result.output) == (0, b"a\nb\n")

    # ------------------------------------------------------------ the environment

    def test_the_locked_packages_can_be_imported(self, shared: Sandbox) -> None:
        assert printed(python(shared, "import iniconfig, sys; print(iniconfig.__file__, sys.prefix)")).startswith(
            f"{ENVIRONMENT_DIR}/lib/"
        )

    def test_the_environments_packages_are_compiled(self, shared: Sandbox) -> None:
        code = "import iniconfig, os; print(os.path.exists(iniconfig.__cached__))"
        assert printed(python(shared, code)) == "True\n"

    def test_the_projects_metadata_and_modules_are_seen(self, shared: Sandbox) -> None:
        code = "import importlib.metadata as m, pkg; print(m.version('sample-project'), pkg.ANSWER, pkg.__file__)"
        result = shared.run([PYTHON, "-c", code], timeout_s=30, cwd="/tmp")
        assert printed(result) == f"1.2.3 42 {CHECKOUT_DIR}/pkg/__init__.py\n"

    def test_environment_project_inputs_and_system_are_read_only(self, shared: Sandbox) -> None:
        for folder in (ENVIRONMENT_DIR, PROJECT_DIR, INPUTS_DIR, "/usr", "/usr/bin", "/etc", "/", "/opt"):
            result = shared.run(["/usr/bin/touch", f"{folder}/planted"], timeout_s=30)
            assert result.exit_code != 0, folder
        assert shared.read(f"{INPUTS_DIR}/ids.txt") == b"test_a\n"

    def test_the_interpreter_itself_cannot_be_replaced(self, shared: Sandbox) -> None:
        code = "import os, sys; p = os.path.realpath(sys.executable); open(p, 'ab')"
        result = python(shared, code)
        assert result.exit_code != 0
        assert b"Error" in result.output

    # ------------------------------------------------------------ time and processes

    def test_the_time_limit_ends_the_whole_tree(self, opener: Opener) -> None:
        with opener() as sandbox:
            code = (
                "import os, time\n"
                "if os.fork() == 0:\n"
                "    os.setsid()\n"
                "    if os.fork() == 0:\n"
                "        for n in range(600):\n"
                "            open('/testbed/beat', 'a').write('x'); time.sleep(0.05)\n"
                "    os._exit(0)\n"
                "time.sleep(600)\n"
            )
            result = python(sandbox, code, timeout_s=1.5)
            assert result.timed_out
            assert result.exit_code is None
            assert result.duration_s < 15
            before = len(sandbox.read(f"{CHECKOUT_DIR}/beat"))
            time.sleep(0.5)
            assert len(sandbox.read(f"{CHECKOUT_DIR}/beat")) == before > 0

    def test_output_before_the_time_limit_is_kept(self, shared: Sandbox) -> None:
        result = shared.run(["/bin/sh", "-c", "echo early; sleep 60"], timeout_s=1)
        assert result.timed_out
        assert result.output.startswith(b"early\n")

    def test_a_command_that_ignores_the_polite_signals_is_ended(self, shared: Sandbox) -> None:
        result = shared.run(["/bin/sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done"], timeout_s=1)
        assert result.timed_out
        assert result.duration_s < 15

    def test_a_background_process_is_gone_when_run_returns(self, opener: Opener) -> None:
        with opener() as sandbox:
            script = "(setsid sh -c 'while :; do echo x >> /tmp/beat; sleep 0.05; done' >/dev/null 2>&1 &) ; sleep 0.3"
            assert sandbox.run(["/bin/sh", "-c", script], timeout_s=30).exit_code == 0
            before = len(sandbox.read("/tmp/beat"))
            time.sleep(0.5)
            assert len(sandbox.read("/tmp/beat")) == before > 0

    def test_it_sees_only_its_own_processes(self, shared: Sandbox) -> None:
        code = "import os; print(sum(name.isdigit() for name in os.listdir('/proc')))"
        assert int(printed(python(shared, code))) < 8
        assert str(os.getpid()).encode() not in shared.run(["/bin/ls", "/proc"], timeout_s=30).output.split()

    # ------------------------------------------------------------ limits

    def test_a_fork_bomb_stays_within_the_limit(self, opener: Opener) -> None:
        code = (
            "import os, time\n"
            "n = 0\n"
            "try:\n"
            "    while n < 2000:\n"
            "        if os.fork() == 0:\n"
            "            time.sleep(60); os._exit(0)\n"
            "        n += 1\n"
            "except OSError:\n"
            "    pass\n"
            "print(n, flush=True); os._exit(0)\n"
        )
        with opener(SMALL) as sandbox:
            result = python(sandbox, code, timeout_s=30)
            assert 1 <= int(printed(result)) <= SMALL.n_processes
            sandbox.run(["/bin/bash", "-c", ":(){ :|:& };:; sleep 5"], timeout_s=2)
            assert sandbox.run(["/bin/echo", "alive"], timeout_s=30).output == b"alive\n"

    def test_a_memory_bomb_is_stopped(self, opener: Opener) -> None:
        code = "x = []\nfor n in range(64):\n    x.append(bytearray(b'x') * (32 << 20))\nprint('survived')"
        with opener(SMALL) as sandbox:
            result = python(sandbox, code, timeout_s=60)
            assert result.out_of_memory or result.exit_code not in (0, None)
            assert b"survived" not in result.output
            assert sandbox.run(["/bin/echo", "alive"], timeout_s=30).output == b"alive\n"

    def test_many_small_processes_share_one_memory_limit(self, opener: Opener) -> None:
        code = (
            "import os, time\n"
            "children = []\n"
            "for n in range(12):\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        x = bytearray(b'x') * (64 << 20); time.sleep(3); os._exit(0)\n"
            "    children.append(pid)\n"
            "killed = [p for p in children if os.waitpid(p, 0)[1]]\n"
            "os._exit(1 if killed else 0)\n"
        )
        with opener(SMALL) as sandbox:
            result = python(sandbox, code, timeout_s=60)
            assert result.out_of_memory or result.exit_code not in (0, None)

    def test_a_flood_of_output_is_capped_at_head_and_tail(self, opener: Opener) -> None:
        with opener(SMALL) as sandbox:
            script = "echo first; yes | head -c 100000000; echo last"
            result = sandbox.run(["/bin/sh", "-c", script], timeout_s=60)
            assert result.exit_code == 0
            assert result.truncated
            assert len(result.output) <= SMALL.output_bytes + 200
            assert result.output.startswith(b"first\n")
            assert result.output.endswith(b"last\n")

    def test_a_file_over_the_limit_is_refused(self, opener: Opener) -> None:
        with opener(SMALL) as sandbox:
            argv = ["/usr/bin/head", "-c", str(SMALL.file_bytes + MIB), "/dev/zero"]
            code = (
                f"import subprocess, sys; sys.exit(subprocess.call({argv!r}, stdout=open('/testbed/big', 'wb')) != 0)"
            )
            assert python(sandbox, code).exit_code == 1
            size = printed(sandbox.run(["/usr/bin/stat", "-c", "%s", "/testbed/big"], timeout_s=30))
            assert int(size) <= SMALL.file_bytes

    @pytest.mark.parametrize("folder", ["/testbed", "/tmp", "/opt/results"])
    def test_filling_the_disk_is_stopped(self, opener: Opener, folder: str) -> None:
        code = (
            "import time\n"
            "for n in range(100):\n"
            f"    open('{folder}/fill%d' % n, 'wb').write(b'x' * (4 << 20)); time.sleep(0.1)\n"
            "print('survived')\n"
        )
        with opener(SMALL) as sandbox:
            result = python(sandbox, code, timeout_s=60)
            assert result.exit_code != 0
            assert b"survived" not in result.output

    def test_shared_memory_and_devices_are_no_way_round_the_limits(self, opener: Opener) -> None:
        code = (
            "import os\n"
            "for folder in ('/dev', '/dev/shm', '/run', '/var'):\n"
            "    try:\n"
            "        for n in range(100):\n"
            "            open('%s/fill%d' % (folder, n), 'wb').write(b'x' * (4 << 20))\n"
            "    except OSError:\n"
            "        continue\n"
            "    print('filled', folder)\n"
        )
        with opener(SMALL) as sandbox:
            assert b"filled" not in python(sandbox, code, timeout_s=60).output

    def test_no_core_file_is_written(self, shared: Sandbox) -> None:
        assert shared.run(["/bin/sh", "-c", "ulimit -c; ulimit -Hc"], timeout_s=30).output == b"0\n0\n"

    # ------------------------------------------------------------ isolation

    def test_an_online_sandbox_reaches_neither_this_machine_nor_its_neighbours(
        self, backend: SandboxBackend, environment: EnvironmentSpec, tmp_path: Path
    ) -> None:
        if why := backend.no_network():
            pytest.skip(f"no sandbox can be opened online here: {why}")
        with socket.create_server(("", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            with contextlib.suppress(OSError):  # no route: then this machine has no other address to try
                probe.connect(("192.0.2.1", 1))
            own = probe.getsockname()[0]
            code = f"""
import socket
def reached(address, port):
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError as error:
        return type(error).__name__
    return "reached"
route = open("/proc/net/route").read()
print("tap0" in route, "10.0.2.3" in open("/etc/resolv.conf").read())
for address in ("127.0.0.1", "10.0.2.2", {own!r}):
    print(address, reached(address, {server.getsockname()[1]}))
print(reached("169.254.169.254", 80))
"""
            with backend.open(SandboxSpec(environment, tmp_path, is_online=True)) as sandbox:
                said = sandbox.run([PYTHON, "-c", code], timeout_s=60).output.decode()
        assert said.startswith("True True\n"), said
        assert " reached" not in said, said
        assert said.endswith("\nOSError\n"), "private addresses must be closed, not only silent: " + said

    def test_no_network_is_reached(self, shared: Sandbox) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            code = (
                "import socket\n"
                f"for target in (('127.0.0.1', {port}), ('1.1.1.1', 53), ('169.254.169.254', 80)):\n"
                "    try:\n"
                "        socket.create_connection(target, 3); print('reached', target)\n"
                "    except OSError:\n"
                "        pass\n"
                "try:\n"
                "    print('resolved', socket.getaddrinfo('example.org', 443))\n"
                "except OSError:\n"
                "    pass\n"
                "print('done')\n"
            )
            assert printed(python(shared, code, timeout_s=60)) == "done\n"

    def test_a_server_can_still_be_tested_on_its_own_loopback(self, shared: Sandbox) -> None:
        code = (
            "import socket\n"
            "server = socket.create_server(('127.0.0.1', 0))\n"
            "socket.create_connection(server.getsockname(), 5)\n"
            "print(socket.gethostbyname('localhost'))\n"
        )
        assert printed(python(shared, code)) == "127.0.0.1\n"

    def test_abstract_unix_sockets_of_the_host_are_not_reached(self, shared: Sandbox) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            name = f"\0swefactory-{uuid.uuid4().hex}"
            server.bind(name)
            server.listen()
            code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({name!r})"
            assert python(shared, code).exit_code != 0

    def test_the_hosts_environment_is_not_seen(self, shared: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "sk-TEST-planted")
        seen = printed(shared.run(["/usr/bin/env"], timeout_s=30))
        assert "sk-TEST-planted" not in seen
        names = {line.partition("=")[0] for line in seen.splitlines()}
        assert not {n for n in names if re.search(r"SECRET|TOKEN|KEY|SWEFACTORY|PROXY", n, re.IGNORECASE)}

    def test_no_process_in_it_shows_the_hosts_environment(
        self, shared: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET", "sk-TEST-planted")
        code = (
            "import os\n"
            "for name in os.listdir('/proc'):\n"
            "    if name.isdigit():\n"
            "        try:\n"
            "            print(open('/proc/%s/environ' % name, 'rb').read())\n"
            "        except OSError:\n"
            "            pass\n"
        )
        assert b"sk-TEST-planted" not in python(shared, code).output

    def test_the_hosts_files_are_not_seen(self, shared: Sandbox, tmp_path: Path, source: Path) -> None:
        secret = tmp_path / "secret.txt"
        secret.write_text("sk-TEST-planted")
        secret.chmod(0o644)
        hidden = [secret, source / "checkout", Path.home() / ".bashrc", Path.home() / ".ssh", Path(__file__)]
        hidden += [Path(p) for p in ("/etc/shadow", "/var/run/docker.sock", "/run/docker.sock", "/var/log")]
        for path in hidden:
            assert shared.run(["/bin/ls", str(path)], timeout_s=30).exit_code != 0, path

    def test_it_is_not_root_and_holds_no_capability(self, shared: Sandbox) -> None:
        status = printed(shared.run(["/bin/cat", "/proc/self/status"], timeout_s=30))
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in fields["Uid"].split()
        assert "0" not in fields["Gid"].split()
        assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
        assert fields["NoNewPrivs"].strip() == "1"

    def test_it_cannot_become_root_again(self, shared: Sandbox) -> None:
        for argv in (["unshare", "-r", "id", "-u"], ["su", "-c", "id -u"], ["setpriv", "--reuid=0", "id", "-u"]):
            result = shared.run(argv, timeout_s=30, stdin=b"\n")
            assert result.exit_code != 0, argv

    def test_it_cannot_mount(self, shared: Sandbox) -> None:
        for argv in (["mount", "-t", "tmpfs", "none", "/tmp"], ["umount", ENVIRONMENT_DIR], ["unshare", "-m", "true"]):
            assert shared.run(argv, timeout_s=30).exit_code != 0, argv

    def test_the_user_has_a_name_and_a_home_of_its_own(self, shared: Sandbox) -> None:
        script = 'id -un && cd "$HOME" && touch mine && ls'
        assert shared.run(["/bin/sh", "-c", script], timeout_s=30).exit_code == 0

    # ------------------------------------------------------------ files

    def test_the_checkout_is_a_private_copy(self, opener: Opener, source: Path) -> None:
        with opener() as sandbox:
            script = "echo changed >> pkg/__init__.py && rm run.sh && echo new > new.txt && readlink link"
            assert sandbox.run(["/bin/sh", "-c", script], timeout_s=30).output == b"pkg/__init__.py\n"
        assert (source / "checkout" / "pkg" / "__init__.py").read_text() == "ANSWER = 42\n"
        assert (source / "checkout" / "run.sh").exists()
        assert not (source / "checkout" / "new.txt").exists()

    def test_state_lasts_between_runs_and_not_between_sandboxes(self, opener: Opener) -> None:
        places = (f"{CHECKOUT_DIR}/kept", "/tmp/kept", f"{RESULTS_DIR}/kept")
        with opener() as sandbox:
            for place in places:
                assert sandbox.run(["/usr/bin/touch", place], timeout_s=30).exit_code == 0
            for place in places:
                assert sandbox.run(["/bin/ls", place], timeout_s=30).exit_code == 0
        with opener() as other:
            for place in places:
                assert other.run(["/bin/ls", place], timeout_s=30).exit_code != 0

    def test_two_sandboxes_at_once_do_not_meet(self, opener: Opener) -> None:
        with opener() as one, opener() as two:
            one.write("/tmp/mine", b"one")
            with pytest.raises(FileNotFoundError):
                two.read("/tmp/mine")

    def test_a_written_file_is_read_back_with_its_parents_made(self, shared: Sandbox) -> None:
        blob = bytes(range(256)) * 1024
        shared.write(f"{CHECKOUT_DIR}/new/deep/file.bin", blob)
        assert shared.read(f"{CHECKOUT_DIR}/new/deep/file.bin") == blob
        shared.write(f"{CHECKOUT_DIR}/new/deep/file.bin", b"")
        assert shared.read(f"{CHECKOUT_DIR}/new/deep/file.bin") == b""

    def test_a_written_file_belongs_to_the_user_with_the_asked_mode(self, shared: Sandbox) -> None:
        shared.write("/tmp/tool", b"#!/bin/sh\necho written\n", mode=0o755)
        assert shared.run(["/tmp/tool"], timeout_s=30).output == b"written\n"
        assert (
            shared.run(["/bin/sh", "-c", "echo more >> /tmp/tool; stat -c %a /tmp/tool"], timeout_s=30).output
            == b"755\n"
        )

    def test_reading_what_is_not_there_says_so(self, shared: Sandbox) -> None:
        with pytest.raises(FileNotFoundError):
            shared.read(f"{CHECKOUT_DIR}/absent")

    def test_reading_a_file_that_is_too_large_is_refused(self, shared: Sandbox) -> None:
        shared.write("/tmp/large", b"x" * 1000)
        assert len(shared.read("/tmp/large", max_bytes=1000)) == 1000
        with pytest.raises(InfrastructureError):
            shared.read("/tmp/large", max_bytes=999)

    def test_reading_a_folder_a_pipe_or_a_device_is_refused(self, opener: Opener) -> None:
        with opener() as sandbox:
            assert sandbox.run(["/usr/bin/mkfifo", "/tmp/pipe"], timeout_s=30).exit_code == 0
            for path in ("/tmp/pipe", CHECKOUT_DIR, "/dev/zero"):
                with pytest.raises((FileNotFoundError, InfrastructureError)):
                    sandbox.read(path)

    def test_a_link_never_leads_a_read_or_a_write_to_the_host(self, opener: Opener, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("sk-TEST-planted")
        outside.chmod(0o777)
        with opener() as sandbox:
            links = {"file": outside / "secret", "folder": outside, "x": outside / "x"}
            for name, target in links.items():
                assert sandbox.run(["/bin/ln", "-s", str(target), f"/opt/results/{name}"], timeout_s=30).exit_code == 0
            for path in ("/opt/results/file", "/opt/results/folder/secret", f"{outside}/secret"):
                with pytest.raises((FileNotFoundError, InfrastructureError)):
                    sandbox.read(path)
            for path in ("/opt/results/folder/planted", "/opt/results/file", "/opt/results/x"):
                with contextlib.suppress(InfrastructureError, FileNotFoundError):
                    sandbox.write(path, b"planted")
        assert sorted(p.name for p in outside.iterdir()) == ["secret"]
        assert (outside / "secret").read_text() == "sk-TEST-planted"

    def test_files_that_only_their_owner_may_read_are_gone_with_the_sandbox(self, opener: Opener) -> None:
        with opener() as sandbox:
            script = "mkdir -p locked/in && touch locked/in/file && chmod 0 locked/in locked"
            assert sandbox.run(["/bin/sh", "-c", script], timeout_s=30).exit_code == 0

    # ------------------------------------------------------------ materialising and sweeping

    def test_materialising_twice_builds_once(self, backend: SandboxBackend, environment: EnvironmentSpec) -> None:
        fresh = replace(environment, digest=f"sha256:{uuid.uuid4().hex * 2}")
        first, second = backend.materialise(fresh), backend.materialise(fresh)
        assert (first.built, second.built) == (True, False)
        assert first.locator == second.locator
        assert first.size_bytes > 0

    def test_two_at_once_are_one_build(self, backend: SandboxBackend, environment: EnvironmentSpec) -> None:
        fresh = replace(environment, digest=f"sha256:{uuid.uuid4().hex * 2}")
        done: list[Materialised] = []
        threads = [threading.Thread(target=lambda: done.append(backend.materialise(fresh))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert sorted(each.built for each in done) == [False, True]

    def test_a_hash_that_does_not_match_is_a_verdict(
        self, backend: SandboxBackend, environment: EnvironmentSpec
    ) -> None:
        bad = spec_of(f"iniconfig==2.0.0 --hash=sha256:{'0' * 64}\n", environment.python_version)
        with pytest.raises(Rejected) as caught:
            backend.materialise(bad)
        assert caught.value.reason is RejectReason.BUILD_FAILED

    def test_an_interpreter_that_nobody_has_is_a_verdict(self, backend: SandboxBackend) -> None:
        with pytest.raises(Rejected) as caught:
            backend.materialise(spec_of("", "3.2"))
        assert caught.value.reason is RejectReason.NO_INTERPRETER

    def test_an_old_python_runs_our_plugin(self, backend: SandboxBackend, tmp_path: Path) -> None:
        """2.7, which uv does not serve by itself, with a source distribution in C that must be built for it."""
        spec = resolved(backend, "2.7", "pytest", "scandir", as_of="2020-06-01T00:00:00Z")
        (tmp_path / "checkout").mkdir()
        (tmp_path / "checkout" / "test_it.py").write_text(
            "import scandir, sys\n\ndef test_two():\n    assert sys.version_info[0] == 2 and scandir.scandir_c\n\n"
            "def test_fails():\n    assert 0\n"
        )
        inputs = Path(swefactory_inputs.__path__[0])
        request = {"key": "00" * 16, "record": f"{RESULTS_DIR}/record", "canary": "canary", "order": "given"}
        with backend.open(SandboxSpec(spec, tmp_path / "checkout", inputs=inputs, limits=ROOMY)) as sandbox:
            asked = json.dumps({**request, "arguments": ["test_it.py"]}).encode()
            said = sandbox.run([PYTHON, f"{INPUTS_DIR}/swefactory_run.py"], timeout_s=60, stdin=asked)
            record = sandbox.read(f"{RESULTS_DIR}/record").decode()
            where = printed(python(sandbox, "import sys; print('%s %s' % (sys.prefix, sys.executable))"))
        events = [json.loads(line.partition(" ")[2]) for line in record.splitlines()]
        calls = {event["id"]: event["outcome"] for event in events if event.get("when") == "call"}
        assert calls["test_it.py::test_two"] == "passed", said
        assert calls["test_it.py::test_fails"] == "failed"
        assert events[-1]["event"] == "end"
        assert where == f"{ENVIRONMENT_DIR} {PYTHON}\n"

    def test_a_source_distribution_in_c_is_built_as_of_its_days(self, backend: SandboxBackend, tmp_path: Path) -> None:
        """markupsafe 1.0 cannot be built with a setuptools of 46 or later."""
        version = next((each for each in ("3.8", "3.7", "3.9") if each in backend.pythons()), None)
        if version is None:
            pytest.skip("no Python of those days here")
        spec = resolved(backend, version, "markupsafe==1.0", as_of="2019-11-01T00:00:00Z")
        (tmp_path / "checkout").mkdir()
        with backend.open(SandboxSpec(spec, tmp_path / "checkout", limits=ROOMY)) as sandbox:
            assert printed(python(sandbox, "import markupsafe._speedups as s; print(s.__file__)")).startswith(
                "/opt/env/"
            )

    def test_a_system_package_that_nobody_has_is_a_verdict_that_names_it(
        self, backend: SandboxBackend, environment: EnvironmentSpec
    ) -> None:
        wanted = spec_of("# another\n" + environment.lock, environment.python_version)
        with pytest.raises(Rejected, match="libnever-made-dev") as caught:
            backend.materialise(replace(wanted, system_packages=("libc6-dev", "libnever-made-dev")))
        assert caught.value.reason is RejectReason.SYSTEM_PACKAGE_MISSING
        assert "libc6-dev," not in str(caught.value).partition("\n")[0]

    def test_a_build_reaches_nothing_on_this_machines_loopback(
        self,
        backend: SandboxBackend,
        environment: EnvironmentSpec,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if backend.name == "namespace" and shutil.which("slirp4netns") is None:
            pytest.skip("slirp4netns is not installed: builds share the host's network, as doctor says")
        links = tmp_path / "links"
        links.mkdir()
        monkeypatch.setenv("UV_FIND_LINKS", str(links))
        monkeypatch.setenv("UV_OFFLINE", "1")
        with socket.create_server(("127.0.0.1", 0)) as server:
            lock = probing_package(links, server.getsockname()[1])
            spec = spec_of(lock, environment.python_version)
            (tmp_path / "checkout").mkdir()
            with backend.open(SandboxSpec(spec, tmp_path / "checkout", limits=ROOMY)) as sandbox:
                assert printed(python(sandbox, "import probing; print(probing.REACHED)")) == "[]\n"

    # ------------------------------------------------------------ extension modules of the project itself

    @pytest.mark.parametrize("layout", [".", "src"])
    def test_a_projects_own_extension_is_built_beside_its_sources(
        self, backend: SandboxBackend, environment: EnvironmentSpec, tmp_path: Path, layout: str
    ) -> None:
        tree = c_project(tmp_path / "tree", layout)
        building = resolved(backend, environment.python_version, "setuptools", "wheel", as_of="2025-01-01T00:00:00Z")
        build = ExtensionBuild(building, tree, (layout,), limits=ROOMY, timeout_s=120)
        made = build_extensions(backend, build, tmp_path / "cache")
        assert len(made.files) == 1
        assert next(iter(made.files)).startswith(f"{layout}/quick/_speed.".removeprefix("./"))
        assert sorted(path.name for path in tree.rglob("*.so")) == []
        again = build_extensions(backend, build, tmp_path / "cache")
        assert (again.files, again.log) == (made.files, "")
        made.lay_over(tree)
        code = f"import sys; sys.path.insert(0, '{CHECKOUT_DIR}/{layout}'); import quick._speed as s; print(s.answer())"
        with backend.open(SandboxSpec(environment, tree, limits=ROOMY)) as sandbox:
            assert printed(python(sandbox, code)) == "42\n"

    def test_a_changed_c_source_is_another_build(
        self, backend: SandboxBackend, environment: EnvironmentSpec, tmp_path: Path
    ) -> None:
        tree = c_project(tmp_path / "tree", ".")
        before = ExtensionBuild(environment, tree).key
        (tree / "quick" / "__init__.py").write_text("# only Python\n")
        assert ExtensionBuild(environment, tree).key == before
        (tree / "quick" / "_speed.c").write_text(C_SOURCE.replace("42", "43"))
        assert ExtensionBuild(environment, tree).key != before

    def test_a_project_that_does_not_compile_is_a_verdict_with_the_compilers_words(
        self, backend: SandboxBackend, environment: EnvironmentSpec, tmp_path: Path
    ) -> None:
        tree = c_project(tmp_path / "tree", ".")
        (tree / "quick" / "_speed.c").write_text("this is no C\n")
        building = resolved(backend, environment.python_version, "setuptools", "wheel", as_of="2025-01-01T00:00:00Z")
        with pytest.raises(Rejected, match=r"_speed\.c:1") as caught:
            build_extensions(backend, ExtensionBuild(building, tree, limits=ROOMY), tmp_path / "cache")
        assert caught.value.reason is RejectReason.BUILD_FAILED

    def test_a_sweep_leaves_the_living_alone(self, backend: SandboxBackend, opener: Opener) -> None:
        with opener(label="901.1") as sandbox:
            backend.sweep(lambda label: True)
            assert sandbox.run(["/bin/echo", "alive"], timeout_s=30).output == b"alive\n"

    def test_a_sweep_removes_what_a_dead_owner_left(self, backend: SandboxBackend, opener: Opener) -> None:
        opened = opener(label="902.1")
        opened.__enter__()
        try:
            assert backend.sweep(lambda label: label != "902.1") == 1
            assert backend.sweep(lambda label: label != "902.1") == 0
        finally:
            opened.__exit__(None, None, None)

    # ------------------------------------------------------------ the shell

    def test_the_shell_is_interactive_and_takes_an_interrupt(self, opener: Opener) -> None:
        with opener() as sandbox, terminal(sandbox.shell_argv()) as (send, expect):
            send("PS1=; stty -echo; echo REA''DY\n")
            expect("READY")
            send("pwd; id -u; echo $((40 + 2)) a\n")
            assert CHECKOUT_DIR in expect("42 a")
            send("tty -s && echo is-a-tt''y\n")
            expect("is-a-tty")
            send("echo beg''un; sleep 100; echo rc=$?\n")
            expect("begun")
            time.sleep(0.5)
            send("\x03")
            send("echo after''wards $?\n")
            expect("afterwards 130")
            send("echo kept > /tmp/from-shell; echo do''ne\n")
            expect("done")
            assert sandbox.read("/tmp/from-shell") == b"kept\n"

    def test_the_shell_sees_what_a_run_left(self, opener: Opener) -> None:
        with opener() as sandbox:
            sandbox.write("/tmp/left", b"by a run\n")
            with terminal(sandbox.shell_argv()) as (send, expect):
                send('cat /tmp/left; python -c \'import iniconfig; print("imp" + "orted")\'\n')
                expect("by a run")
                expect("imported")

    def test_a_shell_that_fills_the_disk_ends_and_none_begins_any_more(self, opener: Opener) -> None:
        with opener(SMALL) as sandbox:
            assert sandbox.violation() is None
            process, master = spawn(sandbox.shell_argv())
            try:
                fill = "for n in $(seq 20); do head -c 4000000 /dev/zero > /testbed/fill$n; done; sleep 100\n"
                os.write(master, fill.encode())
                ended = read_to_end(process, master)
            finally:
                process.kill()
                os.close(master)
            assert ended, "the shell outlived the limit"
            assert f"disk limit of {SMALL.disk_bytes} bytes" in (sandbox.violation() or "")
            with pytest.raises(InfrastructureError, match="disk limit"):
                sandbox.shell_argv()

    def test_processes_that_leave_no_room_are_a_violation(self, opener: Opener) -> None:
        with opener(SMALL) as sandbox, terminal(sandbox.shell_argv()) as (send, _):
            send("for n in $(seq 80); do sleep 100 & done 2>/dev/null; wait\n")
            until = time.monotonic() + 60
            while sandbox.violation() is None and time.monotonic() < until:
                time.sleep(0.2)
            assert f"limit of {SMALL.n_processes}" in (sandbox.violation() or "")

    def test_a_shell_and_its_children_end_with_the_sandbox(self, opener: Opener) -> None:
        with opener() as sandbox:
            process, master = spawn(sandbox.shell_argv())
            os.write(master, b"sleep 600 &\necho REA''DY\n")
            read_until(master, "READY")
        try:
            assert process.wait(15) is not None
        finally:
            os.close(master)


# ---------------------------------------------------------------- a terminal, as an agent's tool drives one


def spawn(argv: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Starts `argv` on a new pty that is nobody's controlling terminal yet; the process and the master's end."""
    master, slave = pty.openpty()
    process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    return process, master


def read_until(master: int, text: str, timeout_s: float = 20) -> str:
    seen = ""
    deadline = time.monotonic() + timeout_s
    while text not in seen:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([master], [], [], left)[0]:
            pytest.fail(f"{text!r} did not appear, only {seen!r}")
        try:
            seen += os.read(master, 65536).decode(errors="replace")
        except OSError:
            pytest.fail(f"the shell ended before {text!r} appeared, after {seen!r}")
    return seen


def read_to_end(process: subprocess.Popen[bytes], master: int, timeout_s: float = 60) -> bool:
    """Drains the terminal until the process has ended; False when it does not within the time."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):
                os.read(master, 65536)
    return process.poll() is not None


@contextlib.contextmanager
def terminal(argv: list[str]) -> Iterator[tuple[Callable[[str], None], Callable[[str], str]]]:
    process, master = spawn(argv)

    def send(text: str) -> None:
        os.write(master, text.encode())

    try:
        yield send, lambda text: read_until(master, text)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        os.close(master)
