"""What a second host has of its own on this machine: a docker engine with a data root and a network namespace, and a
way to the registry of the first. Without the namespace, an engine that has no bridge would remove that of the first.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
import requests

from tests.conftest import free_port


@dataclass(frozen=True)
class Link:
    """A network namespace with one way in and out, to this machine."""

    namespace: str
    here: str  # this machine's address, as the namespace sees it


@dataclass
class Engine:
    """A docker engine that comes back with what it had, after it was killed."""

    command: list[str]
    folder: Path

    @property
    def socket(self) -> str:
        return str(self.folder / "docker.sock")

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log)
        wait(lambda: docker.DockerClient(f"unix://{self.socket}").ping(), self.folder / "log")

    def kill(self) -> None:
        """With its containerd, which the next engine would take over while it dies. The file with its number goes, too:
        who died counts as running until somebody has asked how it ended."""
        number = self.folder / "exec/containerd/containerd.pid"
        self._process.kill()
        self._process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number.read_text()), signal.SIGKILL)
        number.unlink()

    def end(self) -> None:
        ended(self._process)


@contextmanager
def linked() -> Iterator[Link]:
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
        yield Link(name, f"{subnet}.1")
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, timeout=30)


@contextmanager
def registry(folder: Path) -> Iterator[int]:
    """The port of an image registry that other hosts reach."""
    port, program = free_port(), shutil.which("docker-registry")
    assert program, "docker-registry is not installed (Debian: apt install docker-registry)"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\n"
        f"http: {{addr: '0.0.0.0:{port}'}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        wait(lambda: requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5).ok, folder / "log")
        yield port
    finally:
        ended(process)


@contextmanager
def engine(folder: Path, link: Link, registry_port: int) -> Iterator[Engine]:
    """`folder` must be a short one: below it is the socket of containerd."""
    command = [
        "nsenter", f"--net=/run/netns/{link.namespace}", "dockerd", "--host", f"unix://{folder / 'docker.sock'}",
        "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid"),
        "--bridge", "none", "--iptables=false", "--ip6tables=false",
        "--insecure-registry", f"{link.here}:{registry_port}",
    ]  # fmt: skip
    made = Engine(command, folder)
    try:
        made.start()
        yield made
    finally:
        made.end()
        remove_what_killed_ones_left(folder)


def remove_what_killed_ones_left(folder: Path) -> None:
    """Processes beside containers that are gone, and mounts; all name the engine's folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            if f"{folder}/exec/".encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
    for line in Path("/proc/mounts").read_text().splitlines():
        if (mounted := line.split()[1]).startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", mounted], check=False, timeout=30)


def first_socket() -> str:
    return os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or "/var/run/docker.sock"


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    process.kill()


def wait(answers: Callable[[], object], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
            if answers():
                return
        time.sleep(0.2)
    pytest.fail(log.read_text(errors="replace")[-3000:])
