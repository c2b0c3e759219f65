"""One open docker sandbox. Two properties: its container is created hardened, and a run leaves no process behind.

Every run is under the supervisor of images/supervise.c, which ends all it started. The engine's own list of processes
is then asked whether that is so: what is neither the container's first process nor below a supervisor has escaped, and
so has a supervisor that does not end; the container is restarted then, which no process survives and every file does.
"""

import contextlib
import os
import stat
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import CHECKOUT_DIR, INPUTS_DIR, PROJECT_DIR, CommandResult, Limits, SandboxSpec
from swefactory.sandboxes.commands import CappedOutput
from swefactory.sandboxes.docker_engine import LABEL, Engine
from swefactory.sandboxes.docker_exec import SUPERVISE, Ended, execute
from swefactory.sandboxes.docker_store import HOME_LABEL
from swefactory.sandboxes.files_inside import (
    TIMEOUT_S,
    check_written,
    content_of,
    output_bytes,
    read_argv,
    write_argv,
)
from swefactory.sandboxes.isolation import ENVIRONMENT
from swefactory.sandboxes.user_network import RESOLVER_ADDRESS

USER = "1000:1000"
JOB_LABEL = "swefactory.job"
MAIN_PROCESS = ("sleep", "infinity")
_GRACE_S = 5.0  # for the supervisor to end what it started after the time limit
_WATCH_S = 1.0
_SHARE = 10  # at most one part in ten of the time goes into measuring
_DISK_NOTE = "\n[stopped: it wrote more than the sandbox's disk limit of {} bytes]\n"


def host_config(limits: Limits, *, storage_quota: bool = False, is_online: bool = False) -> dict[str, Any]:
    """What bounds a sandbox, in the names of the SDK's `create_host_config`. The engine gives none a network: to one
    that is online, user_network joins another of ours."""
    settings: dict[str, Any] = {
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": limits.n_processes,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "nano_cpus": int(limits.n_cpus * 1e9),
        "ulimits": [
            {"Name": "nofile", "Soft": 4096, "Hard": 4096},
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "fsize", "Soft": limits.file_bytes, "Hard": limits.file_bytes},
        ],
        "init": True,
        "log_config": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "1"}},
        "oom_score_adj": 500,
        "shm_size": 256 * 2**20,
        "ipc_mode": "private",
        "privileged": False,
    }
    if is_online:
        settings["dns"] = [RESOLVER_ADDRESS]
    if storage_quota:
        settings["storage_opt"] = {"size": str(limits.disk_bytes)}
    return settings


def create_parameters(label: str, image: str, home: str) -> dict[str, Any]:
    """The other parameters of the SDK's `create_container`."""
    return {
        "image": image,
        "command": list(MAIN_PROCESS),
        "user": USER,
        "working_dir": CHECKOUT_DIR,
        "hostname": "sandbox",
        "environment": dict(ENVIRONMENT),
        "labels": {LABEL: "1", JOB_LABEL: label, HOME_LABEL: home},
        "stop_timeout": 2,
        "use_config_proxy": False,
    }


@dataclass
class DockerSandbox:
    """A running container. Its watchdog counts how often it was stopped and notes when it ran out of memory."""

    engine: Engine
    container_id: str
    limits: Limits
    n_stops: int = 0
    oom_times: list[float] = field(default_factory=list)  # by the engine's clock
    clock_offset_s: float = 0.0  # the engine's clock less ours
    _restarting: threading.RLock = field(default_factory=threading.RLock)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: str = CHECKOUT_DIR,
        stdin: bytes = b"",
    ) -> CommandResult:
        """See Sandbox."""
        result = self._execute(argv, timeout_s, env or {}, cwd, stdin, self.limits.output_bytes)
        if self._escaped():
            self._restart()
        return result

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """See Sandbox. Done inside, as the sandbox's user: a link there leads nowhere here."""
        check_written(path, self._execute(write_argv(path, mode), TIMEOUT_S, {}, "/", content, 65536))

    def read(self, path: str, max_bytes: int = 64 * 2**20) -> bytes:
        """See Sandbox. Done inside; a pipe or a device is refused before it is opened."""
        argv = read_argv(path, max_bytes)
        return content_of(path, max_bytes, self._execute(argv, TIMEOUT_S, {}, "/", b"", output_bytes(max_bytes)))

    def shell_argv(self) -> list[str]:
        """See Sandbox. The docker program alone is ours; what it starts inside ends with the container."""
        if self.n_stops:
            raise InfrastructureError(f"no shell begins in the sandbox {self.container_id[:12]}: {self._disk_said()}")
        inside = [self.container_id, SUPERVISE, "0", "/bin/bash", "--norc", "--noprofile", "-i"]
        options = ["--user", USER, "--workdir", CHECKOUT_DIR, "--env", "TERM=xterm"]
        return [*self.engine.program(), "exec", "--interactive", "--tty", *options, *inside]

    def violation(self) -> str | None:
        """See Sandbox."""
        if self.n_stops:
            return self._disk_said()
        with self.engine.faults("inspect a sandbox"):
            state = self.engine.api.inspect_container(self.container_id)["State"]
            if not state["Running"]:
                said = (
                    f"it needed more than the sandbox's {self.limits.memory_bytes} bytes of memory, and was ended whole"
                )
                return said if state.get("OOMKilled") else None
            listed = self.engine.api.top(self.container_id, ps_args="-eLo pid,lwp")
        if len(listed["Processes"] or ()) < self.limits.n_processes:
            return None
        return f"its processes fill the sandbox's limit of {self.limits.n_processes}"

    def _disk_said(self) -> str:
        return f"it wrote more than the sandbox's disk limit of {self.limits.disk_bytes} bytes"

    def _execute(
        self, argv: Sequence[str], timeout_s: float, env: Mapping[str, str], cwd: str, stdin: bytes, output_bytes: int
    ) -> CommandResult:
        output, n_stops, began = CappedOutput(output_bytes), self.n_stops, time.time()
        with self._restarting:  # a restart that is under way ends first
            pass
        try:
            ended = execute(
                self.engine, self.container_id, argv,
                env=env, cwd=cwd, stdin=stdin, timeout_s=timeout_s, give_up_s=timeout_s + _GRACE_S,
                output=output, is_stopped=lambda: self.n_stops > n_stops,
            )  # fmt: skip
        except InfrastructureError:
            if self.n_stops == n_stops:
                raise
            ended = Ended(None, time.time() - began)
        is_stopped = self.n_stops > n_stops
        timed_out = ended.duration_s >= timeout_s and not is_stopped
        if is_stopped:
            output.add(_DISK_NOTE.format(self.limits.disk_bytes).encode())
        elif ended.exit_code is None:
            self._restart()
        code = 137 if is_stopped else ended.exit_code
        return CommandResult(
            exit_code=None if timed_out else code,
            output=output.value(),
            duration_s=ended.duration_s,
            timed_out=timed_out,
            truncated=output.dropped_bytes > 0,
            out_of_memory=code != 0 and self._ran_out_of_memory(began),
            stopped=is_stopped,
        )

    def _escaped(self) -> bool:
        """Whether a process is left that no supervisor answers for: one that the container's first one adopted."""
        with self._restarting, self.engine.faults("list a sandbox's processes"):
            listed = self.engine.api.top(self.container_id, ps_args="-eo pid,ppid,args")
        rows = [(row[0], row[1], row[-1]) for row in listed["Processes"] or ()]
        inside = {pid for pid, _, _ in rows}
        first = {pid for pid, parent, program in rows if parent not in inside and SUPERVISE not in program}
        return any(parent in first and program != " ".join(MAIN_PROCESS) for _, parent, program in rows)

    def _restart(self) -> None:
        """Ends every process and keeps every file."""
        with self._restarting, self.engine.faults(f"restart the sandbox {self.container_id[:12]}"):
            self.engine.api.restart(self.container_id, timeout=0)

    def _ran_out_of_memory(self, since: float) -> bool:
        """Whether the kernel ended a process here for want of memory; the watchdog may have been told already."""
        self._note_ooms(since)
        return any(when >= since + self.clock_offset_s for when in self.oom_times)

    def _note_ooms(self, since: float) -> None:
        """Asks the engine, which remembers its last 256 events alone: hence the watchdog asks as well."""
        from_to = [f"{when + self.clock_offset_s:.9f}" for when in (since, time.time())]
        filters = {"container": self.container_id, "event": "oom"}
        with self.engine.faults("ask for its events"):
            for event in self.engine.api.events(since=from_to[0], until=from_to[1], filters=filters, decode=True):
                self.oom_times.append(event["timeNano"] / 1e9)

    def watch(self) -> None:
        """Asks once how much was written; over the limit, everything in the sandbox is ended."""
        with self.engine.faults("measure a sandbox"):
            said = self.engine.api.containers(all=True, size=True, filters={"id": self.container_id})
        if sum(int(each.get("SizeRw") or 0) for each in said) > self.limits.disk_bytes:
            with self._restarting:
                self.n_stops += 1
                self._restart()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watches in a thread of its own: a shell writes as well as a run."""
        ended = threading.Event()

        def work() -> None:
            pause_s, asked = _WATCH_S, time.time()
            while not ended.wait(pause_s):
                started = time.time()
                with contextlib.suppress(InfrastructureError):  # asked again soon; a run tells the fault
                    self._note_ooms(asked)
                    asked = started
                    self.watch()
                pause_s = max(_WATCH_S, _SHARE * (time.time() - started))

        thread = threading.Thread(target=work, name=f"watch {self.container_id[:12]}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(TIMEOUT_S)


def content_tar(spec: SandboxSpec) -> IO[bytes]:
    """A tar file of what goes in: the checkout, owned by the user, and what is ours, owned by root and read-only."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, spec.checkout, CHECKOUT_DIR, is_ours=False)
        for source, target in ((spec.project, PROJECT_DIR), (spec.inputs, INPUTS_DIR)):
            if source is not None:
                _add(tar, source, target, is_ours=True)
    file.seek(0)
    return file


def _add(tar: tarfile.TarFile, source: Path, target: str, *, is_ours: bool) -> None:
    """Files, folders and links alone; a link is stored as a link, wherever it leads."""
    root = target.lstrip("/")
    tar.addfile(_owned(tar.gettarinfo(source.resolve(), root), is_ours))
    for where, folders, names in os.walk(source):
        for name in (*folders, *names):
            path = os.path.join(where, name)
            info = tar.gettarinfo(path, f"{root}/{os.path.relpath(path, source)}")
            if info is None or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
                continue
            if info.isreg():
                with open(path, "rb") as file:
                    tar.addfile(_owned(info, is_ours), file)
            else:
                tar.addfile(_owned(info, is_ours))


def _owned(info: tarfile.TarInfo, is_ours: bool) -> tarfile.TarInfo:
    number = 0 if is_ours else 1000
    mode = info.mode & 0o777
    if is_ours:
        mode = 0o755 if info.isdir() or mode & stat.S_IXUSR else 0o644
    return info.replace(uid=number, gid=number, uname="", gname="", mode=mode, deep=False)
