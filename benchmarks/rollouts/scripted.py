"""What does OpenHands cost beside the model? One property: the model is a script that answers at once, so that every
second and byte measured here is ours, OpenHands' or the sandbox's.

    python benchmarks/rollouts/scripted.py [--rollouts 200] [--steps 10] [-j 4] [--sandbox namespace] [--json]

    start-up      a fresh process until OpenHands is loaded, and a rollout of one answer in it
    bare loop     the same requests and the same commands, without OpenHands: HTTP and one shell in the sandbox
    step          what a step of a rollout takes: model, tools, overhead, from its rows; less the bare loop's
    throughput    `swefactory run -j N` of all rollouts: rollouts an hour, steps a second, the peak of each process
    left behind   processes, sandboxes, temporary folders and containers after it; ends with 1 when there are any

Everything lies in a temporary folder. The repository is one of a file, its environment an interpreter alone.
"""

import argparse
import json
import os
import pty
import resource
import select
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlmodel import select as query

from db.engine import make_engine, session, upgrade
from db.enums import AgentKind, InstanceStatus
from db.models import Environment, PullRequest, Repository, Rollout, RolloutStep, TaskInstance, utc_now
from swefactory import admin
from swefactory.artifacts import LocalArtifacts
from swefactory.checkouts import run_git
from swefactory.config import Settings
from swefactory.protocols import AgentSpec, ProjectLayout
from swefactory.sandbox_protocols import EnvironmentSpec, Limits, SandboxSpec
from swefactory.wiring import make_sandboxes

_COMMAND = "sed -i 's/0/00/' value.py; cat value.py | tail -c 200"
_SAMPLE_S = 0.5


# ---------------------------------------------------------------- the scripted model


def _reply(body: dict[str, Any], n_steps: int) -> dict[str, Any]:
    """A function of how often the model has answered already, so that any number of conversations share it."""
    n_answered = sum(message["role"] == "assistant" for message in body["messages"])
    done = n_answered >= n_steps - 1
    arguments = {"message": "done"} if done else {"command": f"{_COMMAND} # {n_answered}"}
    function = {"name": "finish" if done else "terminal", "arguments": json.dumps(arguments | {"security_risk": "LOW"})}
    calls = [{"id": f"call_{n_answered}", "type": "function", "function": function}]
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return {
        "id": f"r{n_answered}", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice],
        "usage": usage,
    }  # fmt: skip


@contextmanager
def _model(n_steps: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            payload = json.dumps(_reply(body, n_steps)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


# ---------------------------------------------------------------- what is worked on


def _fill(settings: Settings, engine: Engine, folder: Path, python: str) -> None:
    """One validated instance of a repository of one file."""
    origin = folder / "origin"
    origin.mkdir()
    (origin / "value.py").write_text("x = 0\n")
    run_git(origin, "init", "--quiet", "--initial-branch=main")
    run_git(origin, "add", "--all")
    run_git(origin, "commit", "--quiet", "-m", "base")
    commit = run_git(origin, "rev-parse", "HEAD").decode().strip()
    lock = LocalArtifacts(settings.artifacts_dir).put(b"", "text/plain")
    now = utc_now()
    with session(engine) as db:
        db.add(Repository(id=1, name="bench/one", clone_url=str(origin)))
        db.add(Environment(id=1, digest=_DIGEST, python_version=python, lock_digest=lock.digest, resolved_as_of=now))
        db.flush()
        db.add(PullRequest(id=1, repository_id=1, number=1, opened_at=now, merged_at=now, updated_at=now))
        db.flush()
        db.add(
            TaskInstance(
                instance_id="bench__one-1", repository_id=1, pull_request_id=1, environment_id=1,
                status=InstanceStatus.VALIDATED, base_commit=commit, problem_statement="x must grow",
                test_files=["test_value.py"], fail_to_pass=["test_value.py::test_x"], created_at=now,
                project=asdict(ProjectLayout("one", "1")),
            )
        )  # fmt: skip


_DIGEST = f"sha256:{'be' * 32}"


# ---------------------------------------------------------------- the parts


def _start_up(environment: dict[str, str]) -> dict[str, float]:
    """A fresh process that makes an agent; its wall time and peak."""
    code = (
        "import resource; from db.enums import AgentKind; from swefactory.agents.registry import make_agent\n"
        "from swefactory.config import Settings; from swefactory.protocols import AgentSpec\n"
        "make_agent(AgentSpec(AgentKind.OPENHANDS, 'a', model='m'), Settings())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    started = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return {"start_up_s": time.monotonic() - started, "loaded_mib": int(ran.stdout) / 1024}


def _bare_loop(settings: Settings, url: str, python: str, n_steps: int, folder: Path) -> float:
    """Seconds a step of the same requests and commands over one shell."""
    tree = folder / "bare"
    tree.mkdir()
    (tree / "value.py").write_text("x = 0\n")
    spec = SandboxSpec(EnvironmentSpec(_DIGEST, python, ""), tree, limits=Limits())
    with make_sandboxes(settings).open(spec) as sandbox:
        shell, master = _shell(sandbox.shell_argv())
        _typed(master, "PS1=; stty -echo", 0)
        started = time.monotonic()
        messages: list[dict[str, Any]] = [{"role": "user", "content": "x must grow"}]
        for step in range(1, n_steps + 1):
            answer = _asked(url, messages)
            messages.append(answer)
            (call,) = answer["tool_calls"]
            arguments = json.loads(call["function"]["arguments"])
            seen = _typed(master, arguments["command"], step) if "command" in arguments else ""
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": seen})
        took = time.monotonic() - started
        shell.kill()
        shell.wait()
        os.close(master)
    return took / n_steps


def _shell(argv: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    master, slave = pty.openpty()
    shell = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    return shell, master


def _typed(master: int, command: str, number: int) -> str:
    os.write(master, f"{command}\necho END''{number}.\n".encode())
    seen = ""
    while f"END{number}." not in seen:
        if not select.select([master], [], [], 60)[0]:
            raise TimeoutError(f"the shell does not answer: {seen[-200:]!r}")
        seen += os.read(master, 65536).decode(errors="replace")
    return seen


def _asked(url: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    body = json.dumps({"model": "scripted", "messages": messages}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request) as response:  # noqa: S310 - our own server on loopback
        answer: dict[str, Any] = json.loads(response.read())["choices"][0]["message"]
    return answer


def _worked(environment: dict[str, str], n_processes: int, sandbox: str) -> tuple[float, dict[int, int]]:
    """`swefactory run -j N` of the rollouts; its seconds, and the peak KiB of each of our Python processes."""
    command = [sys.executable, "-m", "swefactory.cli.main", "run", "-j", str(n_processes), "--stage", "rollout"]
    started, peaks = time.monotonic(), dict[int, int]()
    with subprocess.Popen([*command, "--sandbox", sandbox], env=environment, stdout=sys.stderr) as process:
        while process.poll() is None:
            for pid in _family(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), _peak_kib(pid))
            time.sleep(_SAMPLE_S)
    if process.returncode:
        sys.exit(f"swefactory run ended with {process.returncode}")
    return time.monotonic() - started, peaks


def _family(root: int) -> list[int]:
    """The process and its children that run Python of ours: workers, not sandboxes."""
    children = Path(f"/proc/{root}/task/{root}/children")
    try:
        pids = [int(pid) for pid in children.read_text().split()]
    except OSError:
        pids = []
    return [root, *(pid for pid in pids if b"multiprocessing" in _command_line(pid))]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _peak_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _left_behind(settings: Settings, folder: Path, sandbox: str) -> list[str]:
    """What is there that should not be, after all work has ended."""
    mine = str(os.getpid())
    pids = [path.name for path in Path("/proc").glob("[0-9]*") if path.name != mine]
    found = [f"process {pid}" for pid in pids if str(folder).encode() in _command_line(int(pid))]
    for place in (settings.cache_dir / "sandboxes", settings.cache_dir / "scratch", folder / "tmp"):
        found += [str(path) for path in place.glob("*") if path.name != "seccomp.bpf"]
    if sandbox == "docker":
        listed = subprocess.run(
            ["docker", "ps", "-aq", "--filter", "label=swefactory.job"], capture_output=True, text=True, check=True
        )
        found += [f"container {each}" for each in listed.stdout.split()]
    return found


# ---------------------------------------------------------------- the whole


def _measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    (folder / "tmp").mkdir()
    with _model(options.steps) as url:
        settings = Settings(home=folder / "home", database_url="", model_url=url, sandbox=options.sandbox)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEFACTORY_")}
        environment = kept | {
            "SWEFACTORY_HOME": str(settings.home), "SWEFACTORY_MODEL_URL": url, "TMPDIR": str(folder / "tmp"),
        }  # fmt: skip
        python = _python(make_sandboxes(settings).pythons())
        engine = make_engine(settings.catalog_url)
        upgrade(engine)
        _fill(settings, engine, folder, python)
        found: dict[str, Any] = _start_up(environment)
        make_sandboxes(settings).materialise(EnvironmentSpec(_DIGEST, python, ""))
        bare_s = _bare_loop(settings, url, python, options.steps, folder)
        with session(engine) as db:
            agent = AgentSpec(AgentKind.OPENHANDS, "scripted", model="scripted")
            admin.add_rollouts(db, agent, replicas=options.rollouts)
        took_s, peaks = _worked(environment, options.jobs, options.sandbox)
        found |= _of_rows(engine, bare_s) | {
            "run_s": took_s,
            "rollouts_an_hour": 3600 * options.rollouts / took_s,
            "steps_a_second": options.rollouts * options.steps / took_s,
            "peak_mib_a_process": sorted(round(peak / 1024) for peak in peaks.values()),
            "benchmark_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "left_behind": _left_behind(settings, folder, options.sandbox),
        }
        engine.dispose()
    return found


def _python(offered: Mapping[str, str]) -> str:
    return next(version for version in ("3.12", "3.11", "3.13", "3.10", "3.9") if version in offered)


def _of_rows(engine: Engine, bare_s: float) -> dict[str, Any]:
    """Means over all steps of all rollouts, and how these ended."""
    with session(engine, writing=False) as db:
        steps, rollouts = list(db.exec(query(RolloutStep))), list(db.exec(query(Rollout)))
    ends = [rollout.exit_status.value if rollout.exit_status else "none" for rollout in rollouts]
    n = max(1, len(steps))
    parts = {name: sum(getattr(step, name) for step in steps) / n for name in ("model_s", "tools_s", "overhead_s")}
    return {
        "rollouts": {end: ends.count(end) for end in sorted(set(ends))},
        "steps": len(steps),
        "rollout_s": sum(rollout.duration_s for rollout in rollouts) / max(1, len(rollouts)),
        **{f"step_{name}": value for name, value in parts.items()},
        "bare_step_s": bare_s,
        "step_beyond_bare_s": sum(parts.values()) - bare_s,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10, help="answers of the model, the last of which is finish")
    parser.add_argument("-j", "--jobs", type=int, default=4)
    parser.add_argument("--sandbox", choices=("namespace", "docker"), default="namespace")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swefactory-rollouts-") as name:
        found = _measured(options, Path(name))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            print(f"{key:22} {value:.3f}" if isinstance(value, float) else f"{key:22} {value}")
    return 1 if found["left_behind"] else 0


if __name__ == "__main__":
    sys.exit(main())
