"""Task instances as a SWE-bench task repository, which `swebench dataset check`, `build` and `eval --task-repo` read.

    sweb.yaml                  the data set it publishes, and its splits
    tasks/<instance_id>/       task.yaml tests.json problem_statement.md hints.md gold.patch test.patch eval.sh
                               Dockerfile

SWE-bench's check demands an image name of its own making; a task's Dockerfile starts from our image of the instance, so
that `--task-repo` builds that name from it. One property: a task read back is the row it was written from.
"""

import json
from collections.abc import Mapping

import yaml

from swefactory.exports.folder import ExportFolder

_FILES = {
    "patch": "gold.patch", "test_patch": "test.patch", "eval_script": "eval.sh",
    "problem_statement": "problem_statement.md", "hints_text": "hints.md",
}  # fmt: skip
_OPTIONAL = frozenset(("hints_text",))
_TESTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
# What is long and for readers of the rows, not for the harness.
_ELSEWHERE = frozenset((*_FILES, *_TESTS, "certificate", "decontamination", "statement_strips", "image"))


def derived_image(instance_id: str) -> str:
    """The image name that SWE-bench derives for an instance."""
    return f"swebench/sweb.eval.x86_64.{instance_id}:latest".lower().replace("__", "_1776_")


def write_config(folder: ExportFolder, base: str, dataset: str, split: str = "test") -> None:
    """sweb.yaml."""
    folder.write(f"{base}/sweb.yaml", _yaml({"datasets": [dataset], "splits": [split]}))


def write_task(folder: ExportFolder, base: str, dataset: str, row: Mapping[str, object], split: str = "test") -> None:
    """One task's folder, from its SWE-bench row."""
    instance_id = str(row["instance_id"])
    task = f"{base}/tasks/{instance_id}"
    facts = {name: value for name, value in row.items() if name not in _ELSEWHERE}
    more = {"split": split, "datasets": [dataset], "image": derived_image(instance_id)}
    folder.write(f"{task}/task.yaml", _yaml({**facts, **more}))
    tests = {name: json.loads(str(row[name])) for name in _TESTS}
    folder.write(f"{task}/tests.json", json.dumps(tests, indent=2, ensure_ascii=False) + "\n")
    for field, name in _FILES.items():
        if row[field] or field not in _OPTIONAL:
            folder.write(f"{task}/{name}", str(row[field]))
    folder.write(f"{task}/Dockerfile", f"FROM {row['image']}\n")


def _yaml(facts: Mapping[str, object]) -> str:
    """In ASCII: of a line separator beyond it PyYAML writes what it reads as a space."""
    return yaml.safe_dump(dict(facts), sort_keys=True)
