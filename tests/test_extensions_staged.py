"""A project with an extension module in C goes the whole way, from its environment to the grade, in real sandboxes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from db.engine import session
from db.enums import AgentKind, ExitStatus, InstanceStatus, JobState, StageName
from db.models import Artifact, Environment, Job, Rollout, TaskInstance
from swefactory import admin
from swefactory.checkouts import apply_patch
from swefactory.cli.environment import explained
from swefactory.environment_disk import needed_now, users
from swefactory.journals import Journal
from swefactory.protocols import AgentResult, AgentSpec, Problem
from swefactory.sandbox_protocols import Sandbox
from swefactory.sandboxes.docker import DockerBackend
from swefactory.stage import Services
from swefactory.stages import environments, grades, rollouts, validation
from swefactory.standing import EnvironmentRejected
from tests.fake_sandbox import diff_of, host_services, write_tree
from tests.sandbox_contract import C_SOURCE, c_project, locked_environment
from tests.test_stage_environments import instance_in, origin

GOLD = {"src/quick/_speed.c": C_SOURCE}
BASE = {"src/quick/_speed.c": C_SOURCE.replace("42", "41")}
TESTS = {"test_quick.py": "from quick._speed import answer\n\ndef test_answer():\n    assert answer() == 42\n"}
OPTIONAL = {"src/quick/__init__.py": "try:\n    from quick import _speed\nexcept ImportError:\n    _speed = None\n"}
NEEDED = {"src/quick/__init__.py": "from quick import _speed\n"}


class Rebuilder:
    """An agent that solves the problem and builds what it changed, as one would to try it."""

    def __init__(self, folder: str) -> None:
        self.folder, self.seen = f"/testbed/{folder}", b""

    def solve(self, problem: Problem, sandbox: Sandbox, journal: Journal | None = None) -> AgentResult:
        before = sandbox.run(["bash", "-c", "git status --porcelain; ls src/quick"], timeout_s=60, cwd=self.folder)
        sandbox.write(f"{self.folder}/src/quick/_speed.c", C_SOURCE.encode())
        rebuild = ["/opt/env/bin/python", "setup.py", "-q", "build_ext", "--inplace"]
        built = sandbox.run(rebuild, timeout_s=120, cwd=self.folder)
        assert built.exit_code == 0, built
        tried = ["/opt/env/bin/python", "-c", "from quick._speed import answer; print(answer())"]
        self.seen = before.output + sandbox.run(tried, timeout_s=60).output
        return AgentResult(ExitStatus.SUBMITTED)


def _below(folder: str, files: Mapping[str, str]) -> dict[str, str]:
    return {(PurePosixPath(folder) / path).as_posix(): text for path, text in files.items()}


class World:
    """A catalog with one candidate on a project whose extension module the gold patch mends."""

    def __init__(self, root: Path, engine: Engine, backend: Any, files: Mapping[str, str], folder: str = "") -> None:
        self.engine, self.root = engine, root
        self.services = host_services(root / "home", backend, n_validation_runs=2)
        tree = c_project(root / "tree" / folder, "src")
        version = locked_environment(backend).python_version
        write_tree(tree, {**BASE, ".python-version": f"{version}\n", **files})
        found = {path.relative_to(tree).as_posix(): path.read_text() for path in tree.rglob("*") if path.is_file()}
        base, gold, tests = (_below(folder, files) for files in (found, GOLD, TESTS))
        with session(engine) as db:
            self.id = instance_in(db, origin(root / "origin", base), 1)
            row = db.get_one(TaskInstance, self.id)
            row.patch, row.test_patch = diff_of(base, {**base, **gold}), diff_of(base, {**base, **tests})
            row.test_files, row.problem_statement = list(tests), "41 is wrong"
            db.add(row)

    def stage(self, stage: Any, subject_id: int, services: Services | None = None) -> Any:
        with session(self.engine) as db:
            asked = stage.load(db, subject_id)
        output = stage.work(services or self.services, asked)
        with session(self.engine) as db:
            stage.save(db, subject_id, output)
        return output

    def row(self, db: Session) -> TaskInstance:
        return db.get_one(TaskInstance, self.id)


@pytest.fixture
def backend(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Any:
    if kind == "namespace":
        return request.getfixturevalue("namespace_backend")
    request.getfixturevalue("docker_engine")
    made = DockerBackend(tmp_path / "docker", build_timeout_s=900)
    if why := made.probe():
        pytest.skip(f"no base image yet: {why}")
    return made


@pytest.mark.parametrize(("kind", "folder"), [("namespace", "libs/python"), ("docker", "")])
def test_each_stage_builds_the_module_of_the_state_it_looks_at(
    backend: Any, folder: str, tmp_path: Path, catalog: Engine
) -> None:
    world = World(tmp_path, catalog, backend, {}, folder)
    world.stage(environments.STAGE, world.id)
    with session(catalog) as db:
        row = world.row(db)
        assert row.environment_id
        assert row.build_environment_id not in (None, row.environment_id)
        building = db.get_one(Environment, row.build_environment_id)
        lock = world.services.artifacts.get(building.lock_digest).decode()
        assert "pytest==" not in lock
        assert "setuptools==69" in lock, "of May 2024"
        assert users(db)[building.digest] == 1
        db.add(Job(stage=StageName.VALIDATION, subject_id=world.id, state=JobState.DOING))
        db.flush()
        assert building.digest in needed_now(db)
        facts = explained(row.recipe)
        assert facts["extension modules"] == "ext_modules in setup.py"
        assert facts["built with"] == ["setuptools  builds setup.py", "wheel  builds setup.py"]

    output = world.stage(validation.STAGE, world.id)
    assert output.report.reason is None, output.report
    with session(catalog) as db:
        assert world.row(db).status is InstanceStatus.VALIDATED
        [test_id] = world.row(db).fail_to_pass
        assert test_id.endswith("test_quick.py::test_answer")
        admin.add_rollouts(db, AgentSpec(AgentKind.NOP, "nop"))
        rollout_id = db.exec(select(Rollout.id)).one()
    assert rollout_id is not None

    agent = Rebuilder(folder)
    world.stage(rollouts.STAGE, rollout_id, replace(world.services, agent=lambda spec: agent))
    listed = agent.seen.decode().split()
    assert any(name.startswith("_speed.") and name.endswith(".so") for name in listed), "the base's module is there"
    assert not any(word in listed for word in ("??", "M", "D")), "and git knows nothing of it"
    assert listed[-1] == "42"
    with session(catalog) as db:
        patch = db.get_one(Rollout, rollout_id).model_patch or ""
    assert [line for line in patch.splitlines() if line.startswith("diff --git")] == [
        "diff --git a/{0} b/{0}".format(*_below(folder, BASE))
    ]
    apply_patch(write_tree(tmp_path / "applied", _below(folder, BASE)), patch)
    world.stage(grades.STAGE, rollout_id)
    with session(catalog) as db:
        assert db.get_one(Rollout, rollout_id).resolved is True


BROKEN = {"setup.py": (
    "from setuptools import Extension, setup\n"
    "setup(name='quick', version='1', packages=['quick'], package_dir={'': 'src'},\n"
    "      ext_modules=[Extension('quick._speed', ['src/quick/absent.c'])])\n"
)}  # fmt: skip


def test_a_project_that_works_without_its_module_stands_without_and_says_so(
    namespace_backend: Any, tmp_path: Path, catalog: Engine
) -> None:
    world = World(tmp_path, catalog, namespace_backend, {**BROKEN, **OPTIONAL, **{"test_quick.py": "import quick\n"}})
    with session(catalog) as db:
        row = world.row(db)
        row.test_patch = ""
        db.add(row)
    output = world.stage(environments.STAGE, world.id)
    assert output.build is None
    [tried] = [each for each in output.recipe.attempts if each.name == "without_extensions"]
    log = tried.detail.rpartition("its log: ")[2]
    assert "absent.c" in world.services.artifacts.get(log).decode()
    with session(catalog) as db:
        assert world.row(db).build_environment_id is None
        assert db.exec(select(Artifact).where(Artifact.digest == log)).one()


def test_a_project_that_needs_its_module_is_rejected_with_the_builds_words(
    namespace_backend: Any, tmp_path: Path, catalog: Engine
) -> None:
    world = World(tmp_path, catalog, namespace_backend, {**BROKEN, **NEEDED})
    with pytest.raises(EnvironmentRejected, match=r"step extensions: .*\n(.*\n)*.*absent\.c") as caught:
        world.stage(environments.STAGE, world.id)
    assert caught.value.step == "extensions"
    assert "absent.c" in world.services.artifacts.get(caught.value.log.digest).decode()
