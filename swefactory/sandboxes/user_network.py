"""A network for builds that leads out and never to this machine. One property: its loopback is the build's own.

A build, or a sandbox that is opened online, runs in a network namespace of its own, to which slirp4netns, a TCP/IP
stack in an ordinary process, is joined before its first instruction. Where that program or /dev/net/tun is missing, and
where a package index itself answers on this machine's loopback, builds share the host's network; `shared_because` says
so. Tests never do: where a network of their own cannot be had they have none, and it has no way to private addresses.
"""

import contextlib
import ipaddress
import json
import os
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from swefactory.errors import InfrastructureError

PROGRAM = "slirp4netns"
RESOLVER_ADDRESS = "10.0.2.3"  # where slirp4netns answers questions of names
# A question that gets lost is asked again after 2 s, not 5, which is longer than most builds take.
RESOLVER = f"nameserver {RESOLVER_ADDRESS}\noptions timeout:2 attempts:5\n"
_READY_TIMEOUT_S = 15
# Of neighbours and clouds: tests have no business there, nor at this machine. What slirp4netns itself is at stays.
_CLOSED = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
_INDEX = re.compile(r"UV_(DEFAULT_INDEX|INDEX|EXTRA_INDEX|FIND_LINKS)\w*|(https?|all)_proxy", re.IGNORECASE)


@dataclass
class UserNetwork:
    """`gate_fd` is what the isolated command waits at until `attach` has joined its namespace to the outside."""

    gate_fd: int
    _open_fd: int
    _exit_fd: int = -1
    _process: subprocess.Popen[bytes] | None = None

    def attach(self, pid: int, *, closed: bool = False) -> None:
        """Joins the namespace of process `pid`; with `closed`, private addresses and this machine's own networks are
        unreachable from it. Raises InfrastructureError when slirp4netns does not get ready."""
        _wait_for_loopback(pid)
        ready, told = os.pipe()
        exits, self._exit_fd = os.pipe()  # ends with us, however we end
        argv = [PROGRAM, "--configure", "--mtu=1500", "--disable-host-loopback", "--enable-seccomp"]
        argv += [f"--ready-fd={told}", f"--exit-fd={exits}", str(pid), "tap0"]
        try:
            self._process = subprocess.Popen(
                argv,
                pass_fds=(told, exits),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            os.close(told)
            told = -1
            if not select.select([ready], [], [], _READY_TIMEOUT_S)[0] or not os.read(ready, 1):
                raise InfrastructureError(f"{PROGRAM} gave no network: {self._complaint()}; see its package")
            if closed:
                _close_private(pid)
        finally:
            for descriptor in (ready, exits, told):
                if descriptor >= 0:
                    os.close(descriptor)
        os.write(self._open_fd, b"1")

    def close(self) -> None:
        """Ends the stack; the namespace has lost its outside then."""
        for descriptor in (self.gate_fd, self._open_fd, self._exit_fd):
            if descriptor >= 0:
                os.close(descriptor)
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
            self._process.wait(5)
            assert self._process.stderr is not None
            self._process.stderr.close()

    def _complaint(self) -> str:
        assert self._process is not None
        assert self._process.stderr is not None
        self._process.kill()
        lines = self._process.stderr.read(4096).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it did not get ready in time"


def _wait_for_loopback(pid: int) -> None:
    """bubblewrap gives the namespace its loopback right after it has named the process, slirp4netns would do the same,
    and whichever comes second fails. Nothing is lost when this never sees it: slirp4netns then says what is wrong."""
    table = Path(f"/proc/{pid}/net/fib_trie")
    deadline = time.monotonic() + _READY_TIMEOUT_S
    with contextlib.suppress(OSError):
        while "127.0.0.1" not in table.read_text() and time.monotonic() < deadline:
            time.sleep(0.001)


def _close_private(pid: int) -> None:
    """Routes that lead nowhere, which code without the capability to change routes cannot take away."""
    rules = "".join(f"route replace unreachable {block}\n" for block in (*_CLOSED, *_own_networks()))
    users = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    argv = ["nsenter", f"--target={pid}", "--net", *users, "--", "ip", "-batch", "-"]
    done = subprocess.run(argv, input=rules.encode(), capture_output=True, timeout=_READY_TIMEOUT_S, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        raise InfrastructureError(f"private addresses cannot be closed to a sandbox: {said[0]}")


def _own_networks() -> list[str]:
    """The networks this machine is in, whatever addresses they have."""
    argv = ["ip", "-json", "-4", "address", "show", "scope", "global"]
    told = subprocess.run(argv, capture_output=True, timeout=_READY_TIMEOUT_S, check=True)
    found = [each for interface in json.loads(told.stdout or b"[]") for each in interface.get("addr_info", ())]
    networks = {ipaddress.ip_network(f"{each['local']}/{each['prefixlen']}", strict=False) for each in found}
    return sorted(map(str, networks))


def none_because() -> str | None:
    """Why no sandbox here can be given a network of its own; None when one can."""
    for program, package in ((PROGRAM, PROGRAM), ("ip", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: apt install {package})"
    return shared_because({})


@contextlib.contextmanager
def user_network(wanted: bool) -> Iterator[UserNetwork | None]:
    """None unless it is wanted."""
    if not wanted:
        yield None
        return
    network = UserNetwork(*os.pipe())
    try:
        yield network
    finally:
        network.close()


def shared_because(env: Mapping[str, str]) -> str | None:
    """Why builds with these index settings must share the host's network; None when they need not."""
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed (Debian: apt install {PROGRAM})"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun is not there or not ours to open"
    for name, value in sorted(env.items()):
        if _INDEX.fullmatch(name) and (host := _on_loopback(value)):
            return f"{name} names {host}, which is this machine's loopback"
    return None


def write_resolver(folder: Path) -> Path:
    """The name service's file for such a build."""
    path = folder / "resolv.conf"
    path.write_text(RESOLVER)
    path.chmod(0o644)
    return path


def _on_loopback(value: str) -> str | None:
    for word in re.split(r"[\s,]+", value):
        host = urlsplit(word).hostname if "://" in word else None
        with contextlib.suppress(OSError, ValueError):
            if host and any(ipaddress.ip_address(each[4][0]).is_loopback for each in socket.getaddrinfo(host, None)):
                return host
    return None
