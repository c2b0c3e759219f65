"""Starts one isolated command as a plan says. A script of its own (`python -I -S launcher.py PLAN`), so that joining a
control group, opening a namespace and changing limits happen in a fresh single-threaded process, never in a fork of a
threaded one. One property: what it starts inherits no variable of the environment and no file but those of the plan.

PLAN is a JSON file:
    argv            the isolating program's argv without its options: [bwrap]
    options         its options, handed over in a memory file so that /proc inside does not show them
    limits          [[name of a RLIMIT_, value], ...]
    join            cgroup.procs files to enter before anything else
    user_namespace  /proc/PID/ns/user of a prepared namespace, or null
    seccomp         a file with a filter, or null
    status          number of an inherited file descriptor for bwrap's --json-status-fd, or null
    gate            number of an inherited file descriptor: nothing runs before a byte can be read there; or null
    lock            a file to hold a shared lock on, while it lasts; null for a command

With `lock` it is a shell: the command runs on a new pseudo-terminal of its own and this process carries bytes between
that and its own terminal, so that nothing inside ever holds the caller's terminal (no TIOCSTI, no escape by job control
and C-c works whoever owns it). It ends with its terminal, its command, or when PLAN is removed.
"""

import contextlib
import fcntl
import json
import os
import pty
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import tty


def main(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        plan = json.load(file)
    for procs in plan["join"]:
        with open(procs, "w", encoding="ascii") as group:
            group.write(str(os.getpid()))
    for name, value in plan["limits"]:
        _limit(getattr(resource, name), value)
    os.umask(0o022)  # whatever ours is: another user of the sandbox must be able to read an environment
    options, kept = list(plan["options"]), []
    for option, source in (("--userns", plan["user_namespace"]), ("--seccomp", plan["seccomp"])):
        if source is not None:
            kept.append(os.open(source, os.O_RDONLY))
            options = [option, str(kept[-1]), *options]
    said, told = os.pipe() if plan["lock"] is not None else (-1, plan["status"])
    if told is not None:
        kept.append(told)
        options = ["--json-status-fd", str(told), *options]
    if plan["gate"] is not None:
        kept.append(plan["gate"])
        options = ["--block-fd", str(plan["gate"]), *options]
    arguments = _memory_file("\0".join(options).encode() + b"\0")
    kept.append(arguments)
    program, *command = plan["argv"]
    argv = [program, "--args", str(arguments), "--", *command]
    if plan["lock"] is not None:
        return _shell(path, plan["lock"], argv, kept, (said, told))
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    os.execve(program, argv, {})  # noqa: S606 - an argument list, and nothing of our environment


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("options")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _shell(path: str, lock: str, argv: list[str], kept: list[int], status: tuple[int, int]) -> int:
    said, told = status
    held = os.open(lock, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    master, slave = pty.openpty()
    os.fchmod(slave, 0o666)  # the user inside is another one; what it starts may open its terminal by name
    _copy_size(0, master)
    # A session without a controlling terminal: setsid inside the sandbox makes the slave its own.
    # Before the process starts: one that is ignored, as in a shell's background, would stay so inside.
    for number in (signal.SIGINT, signal.SIGQUIT):  # a C-c that came as a signal goes on as the character
        signal.signal(number, lambda got, _: os.write(master, b"\x03" if got == signal.SIGINT else b"\x1c"))
    process = subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, pass_fds=kept, env={}, start_new_session=True
    )
    os.close(slave)
    os.close(told)
    signal.signal(signal.SIGWINCH, lambda *_: _copy_size(0, master))
    before = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        if before is not None:
            tty.setraw(0, termios.TCSANOW)  # not the default, which forgets what was typed ahead
        _relay(path, process, master)
    finally:
        if before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSANOW, before)
        process.kill()
        process.wait()
        _wait_for_end(said)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _wait_for_end(said: int) -> None:
    """Waits for the first process of the shell's namespace, which ends after all others, so that the lock tells."""
    for line in os.read(said, 65536).splitlines():
        with contextlib.suppress(ProcessLookupError, ValueError):
            if pid := json.loads(line).get("child-pid"):
                watched = os.pidfd_open(pid)
                signal.pidfd_send_signal(watched, signal.SIGKILL)
                select.select([watched], [], [], 10)


def _relay(path: str, process: "subprocess.Popen[bytes]", master: int) -> None:
    """Carries bytes both ways until one side ends or the plan is gone."""
    while os.path.exists(path):
        ready, _, _ = select.select([0, master], [], [], 0.2)
        for source, target in ((0, master), (master, 1)):
            if source not in ready:
                continue
            try:
                chunk = os.read(source, 65536)
                while chunk:
                    chunk = chunk[os.write(target, chunk) :]
                    if not chunk:
                        break
                else:
                    return
            except OSError:  # EIO: the other end of a terminal was closed
                return
        if not ready and process.poll() is not None:
            return


def _copy_size(source: int, target: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
