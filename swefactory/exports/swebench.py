"""Task instances as SWE-bench v5 rows: what its stock harness evaluates, without a fork.

    swebench.jsonl             a row a line, keys sorted
    data/test-*.parquet        the same, with --parquet
    task-repository/           the same as a SWE-bench task repository, with --task-repo; see task_repositories
    images.jsonl               each row's image and where it is, see instance_images

Names and forms of fields are SWE-bench's (FAIL_TO_PASS and PASS_TO_PASS are JSON lists in a string, of ids in one word
each, see test_names); license, statement_strips, test_files, decontamination, python_version, environment_digest,
image_source and certificate are ours. One property: a row is complete, its evaluation needs nothing but its image.
"""

import json
from collections.abc import Mapping, Sequence

from swefactory.exports.instance_images import ImageSource, image_name
from swefactory.exports.parquet import Columns
from swefactory.exports.scripts import eval_script
from swefactory.exports.subjects import Subject
from swefactory.exports.test_names import clash, printable
from swefactory.instance_runs import EvaluatedInstance
from swefactory.model_patches import PatchUnreadable
from swefactory.runners import uses_pytest

LOG_PARSER, EVAL_TYPE = "parse_log_pytest", "pass_and_fail"
COLUMNS: Columns = {
    "instance_id": "text", "repo": "text", "version": "text", "base_commit": "text",
    "environment_setup_commit": "text", "created_at": "text", "problem_statement": "text", "hints_text": "text",
    "patch": "text", "test_patch": "text", "FAIL_TO_PASS": "text", "PASS_TO_PASS": "text", "image": "text",
    "eval_script": "text", "log_parser": "text", "eval_type": "text", "pr_url": "text", "issue_url": "text",
    "license": "text", "python_version": "text", "environment_digest": "text", "image_source": "text",
    "statement_strips": "json", "test_files": "json", "decontamination": "json", "certificate": "json",
}  # fmt: skip


def unfit(instance: EvaluatedInstance) -> str:
    """Why SWE-bench's form cannot hold this instance; empty when it can."""
    if not uses_pytest(instance.test_command):
        return f"its tests run by `python {' '.join(instance.test_command)}`; the exported scripts run pytest only"
    if same := clash((*instance.fail_to_pass, *instance.pass_to_pass)):
        return f"{len(same)} of its tests have ids that differ in white space alone, for example {same[0]!r}"
    try:
        eval_script(instance.test_patch, instance.test_files)
    except PatchUnreadable as error:
        return f"the files of its test_patch cannot be told: {error}"
    return ""


def row(
    subject: Subject, instance: EvaluatedInstance, source: ImageSource = ImageSource.REBUILD, registry: str = ""
) -> Mapping[str, object]:
    """The row of an instance that is not `unfit`."""
    stored = subject.instance
    return {
        "instance_id": stored.instance_id,
        "repo": subject.repository.name,
        "version": stored.version,
        "base_commit": stored.base_commit,
        "environment_setup_commit": stored.environment_setup_commit,
        "patch": stored.patch,
        "test_patch": stored.test_patch,
        "problem_statement": stored.problem_statement,
        "hints_text": stored.hints_text,
        "created_at": stored.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "FAIL_TO_PASS": _in_words(stored.fail_to_pass),
        "PASS_TO_PASS": _in_words(stored.pass_to_pass),
        "image": image_name(instance, registry),
        "image_source": source.value,
        "eval_script": eval_script(instance.test_patch, instance.test_files),
        "log_parser": LOG_PARSER,
        "eval_type": EVAL_TYPE,
        "pr_url": subject.pull_request.url,
        "issue_url": subject.issues[0].url if subject.issues else "",
        "license": subject.license,
        "statement_strips": stored.statement_strips,
        "test_files": list(stored.test_files),
        "decontamination": stored.decontamination,
        "python_version": subject.environment.python_version,
        "environment_digest": subject.environment.digest,
        "certificate": dict(subject.certificate),
    }


def _in_words(test_ids: Sequence[str]) -> str:
    return json.dumps([printable(test_id) for test_id in test_ids])
