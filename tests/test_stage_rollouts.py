"""The rollout stage on a real catalog, a real repository and the namespace sandbox."""

import importlib.util
import json
import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import SQLModel, col, select

from db.engine import session
from db.enums import AgentKind, AttemptWay, ExitStatus, FlagKind, InstanceStatus, RejectReason, StageName
from db.models import (
    Artifact,
    Environment,
    PullRequest,
    Repository,
    Rollout,
    RolloutAttempt,
    RolloutEvent,
    RolloutFlag,
    RolloutStep,
    TaskInstance,
)
from swefactory import admin
from swefactory.agents.registry import make_agent
from swefactory.artifacts import LocalArtifacts
from swefactory.checkouts import Checkouts, apply_patch, run_git
from swefactory.config import Settings
from swefactory.errors import InfrastructureError, Rejected
from swefactory.journals import Checkpoint, Journal, Step, StopOrder
from swefactory.protocols import AgentResult, AgentSpec, Problem
from swefactory.rollout_journals import SqlJournal
from swefactory.sandbox_protocols import Sandbox
from swefactory.stage import NextJob, Saved, Services
from swefactory.stages import rollouts
from tests.scripted_model import ScriptedModel, call, finish

KEY = "sk-planted-0123456789"
FILES = {
    "calc.py": b"def add(a, b):\n    return a - b\n",
    "latin.txt": "caf\xe9\n".encode("latin-1"),
    "dos.bat": b"echo 1\r\necho 2\r\n",
    ".gitattributes": b"* text=auto\n*.dat filter=evil\n",
    ".gitignore": b"*.log\n",
    "kept.log": b"tracked although ignored\n",
}
NOW = datetime(2024, 1, 2, tzinfo=UTC)
PATCH = """\
diff --git a/calc.py b/calc.py
--- a/calc.py
+++ b/calc.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a - b
+    return a + b
"""
TEST_PATCH = """\
diff --git a/test_calc.py b/test_calc.py
new file mode 100644
--- /dev/null
+++ b/test_calc.py
@@ -0,0 +1,2 @@
+from calc import add
+def test_add_hidden(): assert add(1, 1) == 2
"""
ORACLE = AgentSpec(AgentKind.ORACLE, "oracle")
NOP = AgentSpec(AgentKind.NOP, "nop")
GRADE = Saved(next_jobs=(NextJob(StageName.GRADE, 1, again=True),))


class Doing:
    """An agent that does what it is told inside the sandbox and then says how it ended."""

    def __init__(self, *scripts: str, result: AgentResult | Exception | None = None) -> None:
        self._scripts = scripts
        self._result = result or AgentResult(ExitStatus.SUBMITTED)
        self.problem: Problem | None = None
        self.seen = ""

    def solve(self, problem: Problem, sandbox: Sandbox, journal: Journal | None = None) -> AgentResult:
        self.problem = problem
        for script in self._scripts:
            ran = sandbox.run(["bash", "-ec", script], timeout_s=60)
            self.seen += ran.output.decode(errors="replace")
            assert ran.exit_code == 0, self.seen
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


class World:
    """A catalog that holds one validated task instance, and services of real parts."""

    def __init__(self, root: Path, engine: Engine, backend: Any) -> None:
        self.engine = engine
        self.origin = root / "origin"
        settings = Settings(home=root / "home", model_api_key=KEY)
        self.services = Services(
            settings=settings,
            sources={},
            checkouts=Checkouts(settings.mirrors, settings.cache_dir),
            sandboxes=backend,
            artifacts=LocalArtifacts(settings.artifacts_dir),
            agent=lambda spec: make_agent(spec, settings),
            journals=lambda rollout_id, label: SqlJournal(engine, rollout_id, label),
        )
        self._fill(_make_origin(self.origin), backend)

    def _fill(self, base_commit: str, backend: Any) -> None:
        python = next(v for v in ("3.12", "3.11", "3.13", "3.10") if v in backend.pythons())
        lock = self.services.artifacts.put(b"", "text/plain")
        with session(self.engine) as db:
            repository = Repository(name="o/r", clone_url=str(self.origin))
            environment = Environment(
                digest=f"sha256:{'ab' * 32}", python_version=python, lock_digest=lock.digest, resolved_as_of=NOW
            )
            db.add_all([repository, environment])
            db.flush()
            assert repository.id is not None
            pull_request = PullRequest(
                repository_id=repository.id, number=1, opened_at=NOW, merged_at=NOW, updated_at=NOW
            )
            db.add(pull_request)
            db.flush()
            assert pull_request.id is not None
            instance = TaskInstance(
                instance_id="o__r-1", repository_id=repository.id, pull_request_id=pull_request.id,
                environment_id=environment.id, status=InstanceStatus.VALIDATED, base_commit=base_commit,
                patch=PATCH, test_patch=TEST_PATCH, test_files=["test_calc.py"], problem_statement="add subtracts",
                project={"name": "calc", "version": "1", "source_roots": ["."], "entry_points": {}, "requires": []},
                fail_to_pass=["test_calc.py::test_add_hidden"], created_at=NOW,
            )  # fmt: skip
            db.add(instance)

    def roll_out(self, agent: AgentSpec, services: Services | None = None) -> tuple[Rollout, Saved]:
        """Queues one rollout and takes it through the stage's three functions."""
        with session(self.engine) as db:
            admin.add_rollouts(db, agent)
            rollout_id = db.exec(select(Rollout.id).order_by(col(Rollout.id).desc())).first()
        assert rollout_id is not None
        with session(self.engine) as db:
            task = rollouts.load(db, rollout_id)
        output = rollouts.work(services or self.services, task)
        with session(self.engine) as db:
            saved = rollouts.save(db, rollout_id, output)
        with session(self.engine) as db:
            return Rollout(**db.get_one(Rollout, rollout_id).model_dump()), saved

    def do(self, *scripts: str, result: AgentResult | Exception | None = None) -> tuple[Rollout, Saved]:
        """A rollout of an agent that runs these scripts."""
        return self.roll_out(NOP, self.with_agent(Doing(*scripts, result=result)))

    def with_agent(self, agent: Doing) -> Services:
        return replace(self.services, agent=lambda spec: agent)


def applied(rollout: Rollout, root: Path) -> Path:
    """The base tree with the rollout's patch, applied as grading does."""
    target = root / "applied"
    target.mkdir()
    for name, content in FILES.items():
        (target / name).write_bytes(content)
    apply_patch(target, rollout.model_patch or "")
    return target


def _make_origin(folder: Path) -> str:
    """A repository with the base commit and, after it, the fix; returns the base commit."""
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    run_git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / ".git/info").mkdir(exist_ok=True)
    (folder / ".git/info/attributes").write_text("* -text\n")
    run_git(folder, "add", "--all", "--force")
    run_git(folder, "commit", "--quiet", "-m", "base")
    base_commit = run_git(folder, "rev-parse", "HEAD").decode().strip()
    (folder / "calc.py").write_text("def add(a, b):\n    return a + b  # the fix, later\n")
    run_git(folder, "commit", "--quiet", "-am", "fix")
    return base_commit


@pytest.fixture
def world(tmp_path: Path, catalog: Engine, namespace_backend: Any) -> World:
    return World(tmp_path, catalog, namespace_backend)


# ---------------------------------------------------------------- outcomes


def test_the_oracles_patch_is_the_gold_patch(world: World, tmp_path: Path) -> None:
    rollout, saved = world.roll_out(ORACLE)
    assert rollout.exit_status is ExitStatus.SUBMITTED
    assert (applied(rollout, tmp_path) / "calc.py").read_text() == "def add(a, b):\n    return a + b\n"
    assert (rollout.model_patch or "").count("diff --git") == 1
    assert saved == GRADE
    assert rollout.resolved is None
    assert rollout.started_at is not None
    assert rollout.finished_at is not None
    assert rollout.finished_at > rollout.started_at


def test_nop_is_an_empty_patch_and_is_graded(world: World) -> None:
    rollout, saved = world.roll_out(NOP)
    assert (rollout.exit_status, rollout.model_patch) == (ExitStatus.EMPTY_PATCH, "")
    assert saved == GRADE


def test_a_limit_stays_the_outcome_although_nothing_was_changed(world: World) -> None:
    rollout, saved = world.do(result=AgentResult(ExitStatus.TURN_LIMIT, "enough"))
    assert (rollout.exit_status, rollout.exit_detail) == (ExitStatus.TURN_LIMIT, "enough")
    assert saved == GRADE


@pytest.mark.parametrize("status", [ExitStatus.MODEL_ERROR, ExitStatus.INFRASTRUCTURE_ERROR])
def test_what_is_not_the_agents_doing_is_not_graded(world: World, status: ExitStatus) -> None:
    rollout, saved = world.do("echo x > new.py", result=AgentResult(status, "down"))
    assert (rollout.exit_status, rollout.resolved) == (status, None)
    assert "new.py" in (rollout.model_patch or "")
    assert saved == Saved()


def test_a_failing_sandbox_fails_the_job(world: World) -> None:
    with pytest.raises(InfrastructureError, match="gone"):
        world.do(result=InfrastructureError("the sandbox is gone"))


def test_a_verdict_that_comes_late_is_recorded(world: World) -> None:
    with session(world.engine) as db:
        admin.add_rollouts(db, NOP)
    with session(world.engine) as db:
        saved = rollouts.save(db, 1, Rejected(RejectReason.BASE_COMMIT_MISSING, "the commit is gone"))
    assert saved.rejected is not None
    with session(world.engine) as db:
        rollout = db.get_one(Rollout, 1)
        assert (rollout.exit_status, rollout.exit_detail) == (ExitStatus.INFRASTRUCTURE_ERROR, "the commit is gone")


# ---------------------------------------------------------------- what the agent sees


def test_the_agent_sees_the_base_commit_alone(world: World) -> None:
    look = "git log --oneline --all; git cat-file --batch-all-objects --batch; git config -l; ls -A / /opt/* /testbed"
    agent = Doing(look, "grep -rl 'the fix, later\\|test_add_hidden' /testbed /opt /tmp /home || true; git status -s")
    world.roll_out(NOP, world.with_agent(agent))
    assert agent.problem == Problem("o__r-1", "add subtracts", gold_patch="")
    for told in ("the fix, later", "test_add_hidden", "a + b", KEY):
        assert told not in agent.seen
    assert "return a - b" in agent.seen


def test_the_oracle_alone_is_handed_the_gold_patch(world: World) -> None:
    oracle = Doing()
    world.roll_out(ORACLE, world.with_agent(oracle))
    assert oracle.problem is not None
    assert oracle.problem.gold_patch == PATCH


# ---------------------------------------------------------------- the diff


def test_every_kind_of_change_is_in_the_diff_and_applies(world: World, tmp_path: Path) -> None:
    rollout, _ = world.do(
        "printf 'caf\\351 au lait\\n' > latin.txt; printf 'echo 1\\r\\necho 3\\r\\n' > dos.bat; rm kept.log",
        "head -c 3000 /dev/urandom > blob.dat; mkdir pkg; echo '#!/bin/sh' > 'pkg/ü x'; chmod +x pkg/*",
        "ln -s calc.py link; sed -i 's/-/+/' calc.py; md5sum blob.dat > sum.txt",
    )
    tree = applied(rollout, tmp_path)
    assert (tree / "latin.txt").read_bytes() == b"caf\xe9 au lait\n"
    assert (tree / "dos.bat").read_bytes() == b"echo 1\r\necho 3\r\n"
    assert (tree / "calc.py").read_text() == "def add(a, b):\n    return a + b\n"
    assert not (tree / "kept.log").exists()
    assert os.access(tree / "pkg/ü x", os.X_OK)
    assert os.readlink(tree / "link") == "calc.py"
    subprocess.run(["md5sum", "-c", "sum.txt"], cwd=tree, check=True, capture_output=True)


def test_a_text_change_is_a_readable_diff_of_that_file_alone(world: World) -> None:
    rollout, _ = world.do("sed -i 's/-/+/' calc.py")
    assert rollout.model_patch is not None
    assert rollout.model_patch.startswith("diff --git a/calc.py b/calc.py\n")
    assert rollout.model_patch.count("diff --git") == 1
    assert "\n+    return a + b\n" in rollout.model_patch


def test_litter_and_ignored_files_stay_out(world: World) -> None:
    rollout, _ = world.do(
        "mkdir -p __pycache__ .pytest_cache/v calc.egg-info sub/__pycache__; touch .coverage debug.log a.pyc"
        " __pycache__/calc.cpython-312.pyc .pytest_cache/v/x calc.egg-info/PKG-INFO sub/__pycache__/b.pyc",
        "echo tracked > kept.log; echo new > new.py",
    )
    changed = [line.split(" b/")[1] for line in (rollout.model_patch or "").splitlines() if line.startswith("diff ")]
    assert changed == ["kept.log", "new.py"]


# Runs inside the sandbox only, in the sealed copy of the tree.
_SPOILT_SETTINGS = """
printf '#!/bin/sh\\ntouch /tmp/pwned; echo forged\\n' > /tmp/evil
chmod +x /tmp/evil
for setting in core.fsmonitor diff.external filter.evil.clean core.attributesFile; do
    git config --file /testbed/.git/config $setting /tmp/evil
done
git config --file /testbed/.git/config core.hooksPath /tmp
git config --file /testbed/.git/config core.worktree /tmp
mkdir -p /testbed/.git/hooks /testbed/.git/info
cp /tmp/evil /testbed/.git/hooks/pre-commit
cp /tmp/evil /testbed/.git/hooks/post-index-change
echo '*' > /testbed/.git/info/exclude
"""
_COMMIT = "git -c user.name=a -c user.email=a@a commit -q"


@pytest.mark.parametrize(
    "spoil",
    [
        _SPOILT_SETTINGS,
        f"{_COMMIT} -am mine; git checkout -q -b other; git tag v9",
        "rm -rf /testbed/.git",
        "rm -rf /testbed/.git; git init -q /testbed; echo mine > /testbed/.git/index.lock",
        "git init -q /testbed/sub; git init -q /testbed/deep/er; touch /testbed/deep/er/x",
        f"git init -q /testbed/sub; cd /testbed/sub; touch x; git add x; {_COMMIT} -m x",
        "mkdir locked; touch locked/x; chmod 000 locked",
        "mkfifo pipe",
    ],
    ids=["settings", "committed", "removed", "made new", "nested", "nested commit", "locked", "pipe"],
)
def test_what_an_agent_does_to_git_does_not_change_its_diff(world: World, spoil: str) -> None:
    rollout, _ = world.do("sed -i 's/-/+/' calc.py; printf 'x' > data.dat", spoil)
    assert rollout.exit_status is ExitStatus.SUBMITTED, rollout.exit_detail
    patch = rollout.model_patch or ""
    assert "+    return a + b" in patch
    assert "data.dat" in patch
    assert "forged" not in patch
    assert "Subproject" not in patch


def test_a_diff_that_is_too_large_is_dropped_and_said_so(world: World) -> None:
    rollout, saved = world.do("head -c 6000000 /dev/urandom > big.bin")
    assert (rollout.exit_status, rollout.model_patch) == (ExitStatus.EMPTY_PATCH, "")
    assert "bytes" in rollout.exit_detail
    assert saved == GRADE


# ---------------------------------------------------------------- what is stored


def test_secrets_are_in_nothing_that_is_stored(world: World) -> None:
    told = json.dumps({"key": KEY}).encode() + b"\n"
    result = AgentResult(ExitStatus.SUBMITTED, f"with {KEY}\0", events=told, messages=told)
    rollout, _ = world.do(f"echo {KEY} > leaked.txt", result=result)
    assert KEY not in json.dumps(rollout.model_dump(mode="json"))
    assert "+[redacted]" in (rollout.model_patch or "")
    assert rollout.exit_detail == "with [redacted]"
    stored = [world.services.artifacts.get(d) for d in (rollout.trajectory_digest, rollout.messages_digest) if d]
    assert stored == [b'{"key": "[redacted]"}\n'] * 2
    with session(world.engine) as db:
        assert rollout.trajectory_digest in db.exec(select(Artifact.digest)).all()


@pytest.mark.skipif(importlib.util.find_spec("openhands.tools") is None, reason="OpenHands is absent")
def test_openhands_solves_the_instance_in_its_own_sandbox(world: World) -> None:
    script = [
        call("terminal", command="python --version; pwd; git log --oneline | wc -l; id -u"),
        call(
            "terminal", command="cat > check.py <<'EOF'\nimport calc\nassert calc.add(1, 1) == 2\nEOF\npython check.py"
        ),
        call("file_editor", command="str_replace", path="/testbed/calc.py", old_str="a - b", new_str="a + b"),
        call("terminal", command="python check.py && rm check.py && sleep 60", timeout=1),
        call("terminal", command="C-c", is_input=True),
        call("terminal", command="exit 5"),
        call("terminal", command="git status --short; exec 3<>/dev/tcp/127.0.0.1/1 || echo offline"),
        call("terminal", command=f"git log --all; pip download calc; echo {KEY}"),
        finish(),
    ]
    prices = {"input_cost_per_token": 1e-3, "output_cost_per_token": 0.0}
    agent = AgentSpec(AgentKind.OPENHANDS, "scripted", model="scripted", parameters=prices)
    with ScriptedModel(script) as model:
        asked = world.services.settings.model_copy(update={"model_url": model.url})
        services = replace(world.services, settings=asked, agent=lambda spec: make_agent(spec, asked))
        rollout, saved = world.roll_out(agent, services)
    assert (rollout.exit_status, rollout.exit_detail) == (ExitStatus.SUBMITTED, "")
    assert saved == GRADE
    assert (rollout.n_turns, rollout.n_prompt_tokens, rollout.n_reasoning_tokens) == (9, 900, 27)
    assert (rollout.model_patch or "").count("diff --git") == 1
    assert "+    return a + b" in (rollout.model_patch or "")
    assert rollout.messages_digest is not None
    messages = json.loads(services.artifacts.get(rollout.messages_digest))["messages"]
    seen = [message["content"] for message in messages if message["role"] == "tool"]
    assert "/testbed\n1\n1000\n" in seen[0]
    assert "AssertionError" in seen[1]
    assert "timed out after 1.0 seconds" in seen[3]
    assert "CTRL+C was sent" in seen[4]
    assert "exited with code 5" in seen[5]
    assert "M calc.py" in seen[6]
    assert "offline" in seen[6]
    with session(world.engine, writing=False) as db:
        steps = list(db.exec(select(RolloutStep).order_by(col(RolloutStep.number))))
        flags = list(db.exec(select(RolloutFlag).order_by(col(RolloutFlag.kind))))
        assert not db.exec(select(RolloutEvent)).all(), "once it has ended, an artifact holds the events"
    assert [step.number for step in steps] == list(range(1, 10))
    assert sum(step.cost_usd for step in steps) == pytest.approx(rollout.cost_usd) == pytest.approx(0.9)
    assert rollout.tools_s >= 1
    assert rollout.model_s + rollout.tools_s + rollout.overhead_s <= rollout.duration_s
    lines = services.artifacts.get(rollout.trajectory_digest or "").decode().splitlines()
    assert [(flag.kind, flag.excerpt) for flag in flags] == [
        (FlagKind.HISTORY_DIGGING, "git log --all"), (FlagKind.PACKAGE_DOWNLOAD, "pip download calc"),
    ]  # fmt: skip
    assert {json.loads(lines[flag.event_number])["id"] for flag in flags} == {flags[0].event_id}
    assert_nowhere(KEY, world)


class Died(BaseException):
    """As when a worker is killed: nothing of ours runs any more."""


class Dying(SqlJournal):
    """A journal whose worker dies when it is told of this step's answer."""

    def __init__(self, engine: Engine, rollout_id: int, at_step: int) -> None:
        super().__init__(engine, rollout_id, "1.1")
        self._at_step = at_step

    def step(self, step: Step) -> StopOrder | None:
        if step.number == self._at_step:
            super().step(step)
            raise Died
        return super().step(step)


@pytest.mark.skipif(importlib.util.find_spec("openhands.tools") is None, reason="OpenHands is absent")
def test_a_rollout_whose_worker_died_goes_on_where_it_was(world: World) -> None:
    """Its edits, a file of /tmp included, are there again; no step is asked for twice; what was lost is on record."""
    script = [
        call("terminal", command="echo 'kept' > /tmp/note; chmod +x calc.py; export A=1"),
        call("file_editor", command="str_replace", path="/testbed/calc.py", old_str="a - b", new_str="a + b"),
        call("terminal", command="cat /tmp/note calc.py; echo A=[$A]"),
        finish(),
    ]
    prices = {"input_cost_per_token": 1e-3, "output_cost_per_token": 0.0}
    agent = AgentSpec(AgentKind.OPENHANDS, "scripted", model="scripted", parameters=prices)
    with ScriptedModel([*script[:2], script[2], *script[2:]]) as model:
        asked = world.services.settings.model_copy(update={"model_url": model.url, "checkpoint_share": 1.0})
        services = replace(
            world.services, settings=asked, agent=lambda spec: make_agent(spec, asked),
            journals=lambda rollout_id, _label: Dying(world.engine, rollout_id, 3),
        )  # fmt: skip
        with pytest.raises(Died):
            world.roll_out(agent, services)
        rollout, _ = world.roll_out(agent, replace(services, journals=world.services.journals))
    assert (rollout.exit_status, rollout.n_turns, len(model.requests)) == (ExitStatus.SUBMITTED, 4, 5)
    with session(world.engine, writing=False) as db:
        attempts = list(db.exec(select(RolloutAttempt).order_by(col(RolloutAttempt.number))))
        steps = [(row.attempt, row.number) for row in db.exec(select(RolloutStep))]
    assert [(row.way, row.detail) for row in attempts] == [
        (AttemptWay.FIRST, ""), (AttemptWay.RESUMED, "from step 2"),
    ]  # fmt: skip
    assert sorted(steps) == [(1, 3), (2, 1), (2, 2), (2, 3), (2, 4)]
    assert (rollout.cost_usd, rollout.lost_cost_usd) == (pytest.approx(0.4), pytest.approx(0.1))
    messages = json.loads(services.artifacts.get(rollout.messages_digest or ""))["messages"]
    told = [message["content"] for message in messages if message["role"] in ("tool", "user")]
    assert "The machine you work on was replaced" in told[3]
    assert told[4].startswith("kept\ndef add(a, b):\n    return a + b\nA=[]\n")
    assert "old mode 100644\nnew mode 100755" in (rollout.model_patch or "")


@pytest.mark.skipif(importlib.util.find_spec("openhands.tools") is None, reason="OpenHands is absent")
def test_a_rollout_that_fills_its_disk_is_a_violation_and_no_fault_of_ours(world: World) -> None:
    fill = "for n in $(seq 40); do head -c 1000000 /dev/zero > fill$n; done; sleep 200"
    with ScriptedModel([call("terminal", command=fill, timeout=250), finish()]) as model:
        asked = world.services.settings.model_copy(
            update={"model_url": model.url, "sandbox_disk_bytes": 16 * 2**20, "checkpoint_share": 1.0}
        )
        services = replace(world.services, settings=asked, agent=lambda spec: make_agent(spec, asked))
        agent = AgentSpec(AgentKind.OPENHANDS, "scripted", model="scripted", command_timeout_s=250)
        rollout, saved = world.roll_out(agent, services)
    assert rollout.exit_status is ExitStatus.SANDBOX_VIOLATION
    assert "disk limit of 16777216 bytes" in rollout.exit_detail
    assert (rollout.n_turns, saved) == (1, GRADE)
    events = world.services.artifacts.get(rollout.trajectory_digest or "")
    assert b"seq 40" in events, "what it did is kept"


_FORKS = """python - <<'EOF'
import os, time
n = 0
try:
    while n < 1000:
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
        n += 1
except OSError as error:
    print("stopped:", error, flush=True)
os._exit(0)
EOF"""


@pytest.mark.skipif(importlib.util.find_spec("openhands.tools") is None, reason="OpenHands is absent")
def test_a_line_of_a_hundred_megabytes_a_fork_bomb_and_a_killed_shell_are_survived(world: World) -> None:
    script = [
        call("terminal", command="head -c 100000000 /dev/zero | tr '\\0' x; echo; echo the end"),
        call("terminal", command=_FORKS),
        call("terminal", command="sleep 2; kill -9 $$"),
        call("file_editor", command="str_replace", path="/testbed/calc.py", old_str="a - b", new_str="a + b"),
        call("terminal", command="pwd; echo alive"),
        finish(),
    ]
    agent = AgentSpec(AgentKind.OPENHANDS, "scripted", model="scripted")
    with ScriptedModel(script) as model:
        asked = world.services.settings.model_copy(update={"model_url": model.url, "sandbox_processes": 64})
        services = replace(world.services, settings=asked, agent=lambda spec: make_agent(spec, asked))
        rollout, saved = world.roll_out(agent, services)
    assert (rollout.exit_status, rollout.exit_detail, saved) == (ExitStatus.SUBMITTED, "", GRADE)
    messages = json.loads(services.artifacts.get(rollout.messages_digest or ""))["messages"]
    seen = [message["content"] for message in messages if message["role"] == "tool"]
    assert "the end" in seen[0]
    assert len(seen[0]) < 32_000
    assert "stopped:" in seen[1]
    assert "a new one was started in /testbed" in seen[2]
    assert "/testbed\nalive\n" in seen[4]
    assert "+    return a + b" in (rollout.model_patch or "")


def test_a_checkpoint_that_cannot_be_put_back_makes_it_begin_anew_and_says_why(world: World) -> None:
    with session(world.engine) as db:
        admin.add_rollouts(db, NOP)
    SqlJournal(world.engine, 1, "1.1").keep(
        Checkpoint(3, 9, "diff --git a/none b/none\n--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n")
    )
    rollout, _ = world.do("sed -i 's/-/+/' calc.py")
    assert "+    return a + b" in (rollout.model_patch or "")
    with session(world.engine, writing=False) as db:
        last = list(db.exec(select(RolloutAttempt).order_by(col(RolloutAttempt.number))))[-1]
        assert last.way is AttemptWay.RESTARTED
        assert "does not apply" in last.detail


def assert_nowhere(secret: str, world: World) -> None:
    """In no column of the catalog, and in no file of the home: artifacts, logs, caches."""
    with world.engine.connect() as connection:
        for name, table in SQLModel.metadata.tables.items():
            assert secret not in repr(connection.execute(table.select()).all()), name
    files = [path for path in world.services.settings.home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    assert not [path for path in files if secret.encode() in path.read_bytes()]
