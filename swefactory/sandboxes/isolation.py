"""Turns "this command, these folders, these limits" into a plan for launcher.py. One property: every plan isolates.

Two ways, chosen by who we are:
  * an ordinary user: bubblewrap makes a user namespace in which we are uid 1000;
  * root: a user namespace is prepared in which uid 1000 is a host uid that nobody else has, because the kernel does
    not bound the processes of root and lets it read root's files; root's powers end when the mounts stand (setpriv).
Both end with no capability, no_new_privs, a system call filter, and processes, network and mounts of their own.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from swefactory.errors import SandboxUnavailable
from swefactory.sandbox_protocols import CHECKOUT_DIR, ENVIRONMENT_DIR, PROJECT_DIR, Limits
from swefactory.sandboxes.commands import run_command
from swefactory.sandboxes.groups import Group
from swefactory.sandboxes.seccomp import filter_program

USER_ID = 1000
HOME_DIR = "/home/sandbox"
LAUNCHER = Path(__file__).with_name("launcher.py")
_FIRST_SPARE_UID, _N_SPARE_UIDS = 0x7000_0000, 0x0100_0000  # above what distributions and systemd hand out
_PROGRAMS = ("bwrap", "unshare", "setpriv", "prlimit", "setsid")
_PUBLIC_ETC = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "fonts", "mime.types", "protocols", "services",
    "locale.alias", "ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "ca-certificates", "debian_version",
)  # fmt: skip
_BARE = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
_SHM_BYTES = 64 * 2**20
ENVIRONMENT = {
    "PATH": f"{PROJECT_DIR}/bin:{ENVIRONMENT_DIR}/bin:/usr/local/bin:/usr/bin:/bin",
    "HOME": HOME_DIR,
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "TMPDIR": "/tmp",  # noqa: S108 - a private one, inside
    "TERM": "dumb",
    "VIRTUAL_ENV": ENVIRONMENT_DIR,
    "PYTHONNOUSERSITE": "1",
}


Network = Literal["none", "host", "user", "closed"]  # user: one that leads out and not to the host's loopback;
# closed: nor to any private address. See user_network.py


@dataclass(frozen=True)
class Mount:
    """A host folder or file at `target` inside."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Isolated:
    """One command to isolate. `hidden` are folders inside that are shown empty."""

    argv: tuple[str, ...]
    mounts: tuple[Mount, ...]
    limits: Limits
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = CHECKOUT_DIR
    hidden: tuple[str, ...] = ()
    network: Network = "none"
    group: Group | None = None


@dataclass(frozen=True)
class Owner:
    """Who owns a sandbox's files and processes on the host; `namespace` where a prepared one maps it to USER_ID."""

    uid: int
    gid: int
    namespace: str | None

    def give(self, *folders: Path) -> None:
        """Makes everything below `folders` this owner's."""
        if self.namespace is not None and folders:
            argv = ["chown", "-R", "-h", f"{self.uid}:{self.gid}", "--", *map(str, folders)]
            subprocess.run(argv, check=True, capture_output=True, timeout=600)


@contextlib.contextmanager
def owner(uid: int | None = None) -> Iterator[Owner]:
    """The owner of one sandbox, while it is open: as root a host uid of its own (or `uid`), else ourselves."""
    if not _is_host_root():
        yield Owner(os.getuid(), os.getgid(), None)
        return
    uid = uid if uid is not None else _FIRST_SPARE_UID + 1 + secrets.randbelow(_N_SPARE_UIDS - 1)
    # A process that only waits holds the namespace; it sees our death as the end of its input.
    waiting = ["unshare", "--user", "--", "cat"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=_BARE) as holder:
        namespace = f"/proc/{holder.pid}/ns/user"
        _wait_for_namespace(holder, namespace)
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{kind}").write_text(f"0 0 1\n{USER_ID} {uid} 1\n")
        try:
            yield Owner(uid, uid, namespace)
        finally:
            assert holder.stdin is not None
            holder.stdin.close()


BUILDER_UID = _FIRST_SPARE_UID  # owns uv's cache and the environments


def write_plan(
    path: Path,
    wanted: Isolated,
    who: Owner,
    *,
    status: int | None = None,
    gate: int | None = None,
    lock: Path | None = None,
) -> list[str]:
    """Writes the plan and returns the host argv that carries it out; `status` is a descriptor for bwrap's status,
    `gate` one that the command waits at for a byte."""
    seccomp = _seccomp_file(path.parent)
    plan = {
        "argv": [_program("bwrap"), *_inner(wanted, who)],
        "options": _options(wanted, who, is_shell=lock is not None),
        "limits": _resource_limits(wanted),
        "join": [] if wanted.group is None else list(wanted.group.procs),
        "user_namespace": who.namespace,
        "seccomp": None if seccomp is None else str(seccomp),
        "status": status,
        "gate": gate,
        "lock": None if lock is None else str(lock),
    }
    path.write_text(json.dumps(plan))
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(path)]


def obstacle(scratch: Path) -> str | None:
    """Why untrusted code cannot be isolated here, in one sentence with what to do; None when it can. Tries it."""
    if sys.platform != "linux":
        return f"the namespace sandbox needs Linux, this is {sys.platform}; use the docker sandbox"
    for program in _PROGRAMS:
        if _which(program) is None:
            package = "bubblewrap" if program == "bwrap" else "util-linux"
            return f"{program} is not on PATH; install the system's package {package}, or use the docker sandbox"
    try:
        return _trial(scratch)
    except (OSError, SandboxUnavailable) as error:
        return f"a trial sandbox could not be made: {error}; {_advice()}"


def _trial(scratch: Path) -> str | None:
    scratch.mkdir(parents=True, exist_ok=True)
    plan = scratch / f"trial-{secrets.token_hex(4)}.json"
    try:
        with owner() as who:
            wanted = Isolated(("/usr/bin/id", "-u"), (), Limits(), cwd="/")
            result = run_command(write_plan(plan, wanted, who), timeout_s=20, output_bytes=4096, env={})
    finally:
        plan.unlink(missing_ok=True)
    if result.exit_code == 0 and result.output.strip() == str(USER_ID).encode():
        return None
    said = result.output.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
    return f"a trial sandbox failed with {said[0]!r}; {_advice()}"


def _advice() -> str:
    for name, wanted in (
        ("kernel/unprivileged_userns_clone", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "0"),
        ("user/max_user_namespaces", "15000"),
    ):
        file = Path("/proc/sys") / name
        value = file.read_text().strip() if file.exists() else None
        if value is not None and (value == "0") == (wanted != "0"):
            return f"the kernel forbids user namespaces: run `sysctl -w {name.replace('/', '.')}={wanted}` as root"
    return "user, mount and network namespaces must be allowed (in a container: by its host), or use the docker sandbox"


def _inner(wanted: Isolated, who: Owner) -> list[str]:
    """The command behind what must happen after the namespaces stand: becoming uid 1000, bounding its processes."""
    drop = []
    if who.namespace is not None:
        ids = [f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups"]
        drop = ["/usr/bin/setpriv", *ids, "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"]
    return [*drop, "/usr/bin/prlimit", f"--nproc={_n_processes(wanted.limits)}", "--", *_chdir(wanted)]


def _chdir(wanted: Isolated) -> list[str]:
    # Not bubblewrap's --chdir: a folder that is not there is the command's fault and must not look like ours.
    return ["/usr/bin/env", f"--chdir={wanted.cwd}", "--", *wanted.argv]


def _options(wanted: Isolated, who: Owner, *, is_shell: bool) -> list[str]:
    options = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox"]
    options += [] if wanted.network == "host" else ["--unshare-net"]
    if who.namespace is None:
        options += ["--unshare-user", "--uid", str(USER_ID), "--gid", str(USER_ID), "--cap-drop", "ALL"]
        options += ["--disable-userns"] if filter_program() is None else []
    else:
        options += ["--cap-drop", "ALL"]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            options += ["--cap-add", capability]
    options.append("--die-with-parent")
    options += [] if is_shell else ["--new-session"]  # a shell's session is made inside, to own its terminal
    options += _system_options() + _folder_options(wanted)
    options += ["--clearenv"]
    for name, value in {**ENVIRONMENT, **wanted.env}.items():
        options += ["--setenv", name, value]
    return options


def _system_options() -> list[str]:
    """The system's programs, read-only, and a minimal /etc, /dev and /proc."""
    options = ["--proc", "/proc", "--dev", "/dev"]
    options += ["--perms", "1777", "--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108
    options += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/") / name
        if path.is_symlink():
            options += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    for name in _PUBLIC_ETC:
        if Path(f"/etc/{name}").exists():
            options += _at(f"/etc/{name}", "--ro-bind", f"/etc/{name}")
    options += ["--symlink", "/usr/lib/os-release", "/etc/os-release"]
    options += ["--symlink", "/usr/share/zoneinfo/UTC", "/etc/localtime"]
    for folder in ("/run", "/var", "/srv", "/mnt"):
        options += ["--perms", "0755", "--dir", folder]
    return [*options, "--symlink", "/tmp", "/var/tmp"]  # noqa: S108


def _folder_options(wanted: Isolated) -> list[str]:
    options: list[str] = []
    for mount in wanted.mounts:
        options += _at(mount.target, "--bind" if mount.writable else "--ro-bind", str(mount.source))
    for folder in wanted.hidden:
        options += ["--perms", "0555", "--tmpfs", folder, "--remount-ro", folder]
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/"]


def _at(target: str, option: str, source: str) -> list[str]:
    """A mount, with the folders above it made passable first: bubblewrap would make them for root alone."""
    parents = [str(parent) for parent in reversed(Path(target).parents) if str(parent) not in ("/", "/usr")]
    made = [word for parent in parents for word in ("--perms", "0755", "--dir", parent)]
    return [*made, option, source, target]


def _resource_limits(wanted: Isolated) -> list[tuple[str, int]]:
    limits = [("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", wanted.limits.file_bytes), ("RLIMIT_NOFILE", 4096)]
    if wanted.group is None or not wanted.group.has_memory:
        # Private writable memory of one process; not the address space, which some programs reserve in terabytes.
        limits.append(("RLIMIT_DATA", wanted.limits.memory_bytes))
    return limits


def _n_processes(limits: Limits) -> int:
    """RLIMIT_NPROC inside. Before Linux 5.14 it counts the user's processes outside as well."""
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if release >= (5, 14) or _is_host_root():
        return limits.n_processes
    n_tasks = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            n_tasks += int(fields["Threads"]) if fields["Uid"].split()[0] == str(os.getuid()) else 0
    return limits.n_processes + n_tasks


def _seccomp_file(folder: Path) -> Path | None:
    program = filter_program()
    if program is None:
        return None
    path = folder / "seccomp.bpf"
    if not path.exists():
        part = folder / f".seccomp-{secrets.token_hex(4)}"
        part.write_bytes(program)
        part.rename(path)
    return path


def _is_host_root() -> bool:
    """Root over every uid; root of a container's own user namespace is an ordinary user to the kernel."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _which(name: str) -> str | None:
    """On PATH, or beside our own interpreter: there the set-up puts bubblewrap where it may install no package."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _program(name: str) -> str:
    found = _which(name)
    if found is None:
        raise SandboxUnavailable(f"{name} is not on PATH; install it, or use the docker sandbox")
    return found


def _wait_for_namespace(holder: subprocess.Popen[bytes], namespace: str) -> None:
    ours = os.readlink("/proc/self/ns/user")
    deadline = time.monotonic() + 10
    while os.readlink(namespace) == ours:
        if holder.poll() is not None or time.monotonic() > deadline:
            raise SandboxUnavailable(f"unshare made no user namespace (exit {holder.returncode}); {_advice()}")
        time.sleep(0.0005)
