"""Task instances as Harbor task folders (schema 1.4), which Harbor, verifiers and prime-rl run.

    tasks/<instance_id>/       task.toml  instruction.md  environment/Dockerfile
                               solution/{solve.sh,gold.patch}  tests/{test.sh,test.patch,tests.json}
    registry.json              the tasks as one data set
    images.jsonl locks/        where each image is, see image_sources

The verifier has a container of its own, fresh from the instance's image; the text of the agent's patch is all that
crosses, taken by a script of ours against our own copy of the base. The agent gets no network, and is not root. One
property: nothing of the fix or its tests is where the agent runs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from db.engine import session
from db.enums import ExportFormat
from swefactory.exports import swebench
from swefactory.exports.folder import ExportFolder
from swefactory.exports.frame import Frame, card_text
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import image_name
from swefactory.exports.scripts import harbor_solve, harbor_test
from swefactory.exports.subjects import Choice, Subject
from swefactory.exports.test_names import printable
from swefactory.instance_runs import EvaluatedInstance

ORGANISATION = "swefactory"
_PATCH = "/logs/artifacts/model.patch"
_AGENT_TIMEOUT_S, _VERIFIER_TIMEOUT_S = 3600, 1800
_TEXT = """\
Tasks for Harbor (schema 1.4): `harbor run -p tasks -a oracle` gives 1.0, `-a nop` 0.0. The verifier is separate and
gets the text of the agent's patch alone. `images.jsonl` says of each task where its image is.
"""
_INSTRUCTION = """\
You are working in a checkout of {repo} at /testbed. Resolve the following issue by changing the source code there. Do
not change the tests: hidden tests judge your work, on a fresh checkout to which only your changes to the source are
applied. There is no network. Python is /opt/env/bin/python, with everything installed.

{statement}
"""


@dataclass(frozen=True)
class Terms:
    """Under which limits the tasks run. `network` is Harbor's word: no-network or public."""

    network: str = "no-network"
    cpus: int = 2
    memory_mb: int = 4096


_USUAL = Terms()


def write(engine: Engine, images: Images, choice: Choice, target: Path, terms: Terms = _USUAL) -> ExportFolder:
    """Writes the folder `target`. Raises UsageError, ArtifactError, and what images raise."""
    options = {**choice.options(), "images": images.source.value, "registry": images.prefix, **vars(terms)}
    with ExportFolder(target, ExportFormat.HARBOR.value, options) as folder:
        with session(engine, writing=False) as db, Frame(db, folder, choice) as frame:
            ids, names = [], []
            for subject, instance in frame.fit(swebench.unfit):
                files = task_files(subject, instance, image_name(instance, images.prefix), terms)
                for name, content in files.items():
                    mode = 0o755 if name.endswith(".sh") else 0o644
                    folder.write(f"tasks/{instance.instance_id}/{name}", content, mode)
                frame.row(subject, files)
                ids.append(subject.instance.id or 0)
                names.append(instance.instance_id)
        folder.write("registry.json", _registry(names))
        images.write(engine, folder, ids)
        folder.write("README.md", card_text(frame.card("Harbor tasks by swefactory", _TEXT), engine))
    return folder


def task_files(subject: Subject, instance: EvaluatedInstance, image: str, terms: Terms) -> Mapping[str, str]:
    """A task's files: path below its folder -> text."""
    lists = {"FAIL_TO_PASS": instance.fail_to_pass, "PASS_TO_PASS": instance.pass_to_pass}
    tests = {name: [printable(test_id) for test_id in ids] for name, ids in lists.items()}
    statement = subject.instance.problem_statement.strip()
    return {
        "task.toml": _toml(_config(subject, instance, image, terms)),
        "instruction.md": _INSTRUCTION.format(repo=subject.repository.name, statement=statement),
        "environment/Dockerfile": f"FROM {image}\n",
        "solution/solve.sh": harbor_solve(),
        "solution/gold.patch": instance.patch,
        "tests/test.sh": harbor_test(instance.test_patch, instance.test_files),
        "tests/test.patch": instance.test_patch,
        "tests/tests.json": json.dumps(tests, indent=1) + "\n",
    }


def _config(subject: Subject, instance: EvaluatedInstance, image: str, terms: Terms) -> Mapping[str, object]:
    """task.toml as tables."""
    place = {
        "docker_image": image, "network_mode": terms.network, "cpus": terms.cpus, "memory_mb": terms.memory_mb,
        "workdir": "/testbed",
    }  # fmt: skip
    collect = {"command": f"bash /opt/inputs/model-patch.sh > {_PATCH}", "user": "root", "timeout_sec": 120.0}
    return {
        "schema_version": "1.4",
        "task": {
            "name": f"{ORGANISATION}/{instance.instance_id}",
            "description": f"{subject.repository.name}: pull request {subject.pull_request.number}",
            "keywords": ["python", "swe-bench"],
        },
        "metadata": {
            "repo": subject.repository.name,
            "base_commit": instance.base_commit,
            "license": subject.license,
            "created_at": subject.instance.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "environment_digest": instance.environment_digest,
            "gold": str(subject.certificate.get("gold", "")),
            "empty": str(subject.certificate.get("empty", "")),
        },
        "agent": {"timeout_sec": float(_AGENT_TIMEOUT_S), "user": "sandbox"},
        "environment": place,
        # No verifier.environment: one with an image of its own would have to hold the tests already. Without, the
        # verifier's container is a fresh one of the agent's image, and /logs/artifacts is what crosses.
        "verifier": {
            "timeout_sec": float(_VERIFIER_TIMEOUT_S),
            "user": "root",
            "environment_mode": "separate",
            "collect": [collect],
        },
    }


def _registry(names: list[str]) -> str:
    tasks = [{"name": name, "path": f"tasks/{name}"} for name in names]
    return json.dumps([{"name": f"{ORGANISATION}/tasks", "version": "1.0", "tasks": tasks}], indent=1) + "\n"


def _toml(tables: Mapping[str, object], path: str = "") -> str:
    """TOML of these tables: plain values first, then tables, then lists of tables. JSON's strings are TOML's, too."""
    plain = [name for name, value in tables.items() if not isinstance(value, Mapping) and not _is_tables(value)]
    text = "".join(f"{name} = {_value(tables[name])}\n" for name in plain)
    for name, value in tables.items():
        where = f"{path}{name}"
        if isinstance(value, Mapping):
            text += f"\n[{where}]\n{_toml(value, f'{where}.')}"
        elif isinstance(value, list) and _is_tables(value):
            text += "".join(f"\n[[{where}]]\n{_toml(each, f'{where}.')}" for each in value)
    return text


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _value(value: object) -> str:
    """DEL alone may stand in JSON's strings and not in TOML's."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
