"""`swefactory demo` as a process, on the real namespace sandbox; then bad luck on the instances that it validated.

The demo is run once for the whole file, some two minutes long; what follows works on its home.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KEY = "a-model-key-for-tests"
SOLVED, FAILED = "lapse-dev__lapse-2", "lapse-dev__lapse-7"
VALIDATED = [f"lapse-dev__lapse-{number}" for number in (10, 18, 2, 7)]


def run(home: Path, *args: str, code: int = 0, before: tuple[str, ...] = (), **environment: str) -> str:
    """What `swefactory ARGS` printed, once its exit code is the expected one and nothing is a traceback."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SWEFACTORY_")}
    ran = subprocess.run(
        [*before, sys.executable, "-m", "swefactory.cli.main", *args],
        env=kept | {"SWEFACTORY_HOME": str(home)} | environment,
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if before and "mount:" in ran.stderr:
        pytest.skip(f"no private mount can be made here: {ran.stderr.strip()}")
    assert "Traceback" not in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr if code else ran.stdout


def rows(home: Path, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(home, *args, "--json"))
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, namespace_backend: object) -> tuple[Path, str]:
    """The demo's home and what it printed."""
    home = tmp_path_factory.mktemp("demo") / "home"
    return home, run(home, "demo", "--home", str(home))


def test_the_demo_shows_the_whole_chain(demo: tuple[Path, str]) -> None:
    home, said = demo
    assert "not as expected" not in said
    assert "Nothing was left to do" not in said
    for part in ("funnel", "rejections", "rollouts", "exports", "next", "instance show"):
        assert part in said
    total = next(row for row in rows(home, "query", "funnel") if row["repository"] == "total")
    assert (total["pull_requests"], total["candidates"], total["validated"]) == (10, 7, 4)


def test_each_pull_request_of_the_demo_meets_its_fate(demo: tuple[Path, str]) -> None:
    home, _ = demo
    assert sorted(row["instance_id"] for row in rows(home, "query", "instances") if row["status"] == "validated") == (
        VALIDATED
    )
    assert {row["reason"]: row["n"] for row in rows(home, "query", "rejections")} == dict.fromkeys(
        (
            "no_linked_issue", "docs_only", "no_test_change", "tests_pass_before", "collection_error",
            "flaky_fail_to_pass",
        ),
        1,
    )  # fmt: skip


def test_the_oracle_resolves_nop_does_not_and_openhands_solves_one_of_two(demo: tuple[Path, str]) -> None:
    home, _ = demo
    resolved = {(row["agent"], row["instance_id"]): row["resolved"] for row in rows(home, "rollout", "list")}
    assert resolved == (
        {("oracle", name): True for name in VALIDATED}
        | {("nop", name): False for name in VALIDATED}
        | {("openhands/scripted", SOLVED): True, ("openhands/scripted", FAILED): False}
    )


def test_the_exports_of_the_demo_hold_validated_instances_and_resolved_trajectories(demo: tuple[Path, str]) -> None:
    home, _ = demo
    instances = [json.loads(line) for line in (home / "exports" / "swebench" / "swebench.jsonl").open(encoding="utf-8")]
    assert sorted(row["instance_id"] for row in instances) == VALIDATED
    assert all(row["FAIL_TO_PASS"] and row["patch"] and row["test_patch"] for row in instances)
    trajectories = [
        json.loads(line) for line in (home / "exports" / "trajectories" / "trajectories.jsonl").open(encoding="utf-8")
    ]
    assert [row["instance_id"] for row in trajectories] == [SOLVED]


def test_a_second_demo_says_that_nothing_was_left_to_do(demo: tuple[Path, str]) -> None:
    home, _ = demo
    assert "Nothing was left to do" in run(home, "demo", "--home", str(home))


def test_a_model_that_is_down_ends_the_rollout_and_is_named_without_its_key(demo: tuple[Path, str]) -> None:
    home, _ = demo
    run(home, "rollout", "add", "--agent", "openhands", "--model", "openai/absent", "--instance", SOLVED)
    run(home, "run", SWEFACTORY_MODEL_URL="http://127.0.0.1:9/v1", SWEFACTORY_MODEL_API_KEY=KEY)
    [row] = [row for row in rows(home, "rollout", "list") if row["agent"] == "openhands/openai/absent"]
    assert (row["exit_status"], row["resolved"]) == ("model_error", None)
    shown = json.loads(run(home, "rollout", "show", str(row["id"]), "--json"))
    assert "http://127.0.0.1:9/v1" in shown["exit_detail"]
    assert "SWEFACTORY_MODEL_URL" in shown["exit_detail"]
    assert KEY not in json.dumps(shown)


def test_a_full_disk_fails_the_job_with_a_sentence_and_a_retry_finishes_it(demo: tuple[Path, str]) -> None:
    """A small file system over the artifacts, with what is stored copied in and then filled to the brim."""
    home, _ = demo
    run(
        home,
        "rollout",
        "add",
        "--agent",
        "oracle",
        "--instance",
        SOLVED,
        "--replicas",
        "2",
        SWEFACTORY_MAX_ATTEMPTS="1",
    )
    full = (
        'mkdir "$1.copy" && cp -a "$1/." "$1.copy" && mount -t tmpfs -o size=8m none "$1" && cp -a "$1.copy/." "$1" '
        '&& { cat /dev/zero > "$1/filler" 2>/dev/null; shift; exec "$@"; }'
    )
    before = ("unshare", "-rm", "sh", "-c", full, "sh", str(home / "artifacts"))
    said = run(home, "run", code=3, before=before, SWEFACTORY_MAX_ATTEMPTS="1")
    assert "job retry --dead" in said
    [dead] = rows(home, "query", "dead")
    assert "cannot store artifact" in dead["message"]
    assert "No space left on device" in dead["message"]
    run(home, "job", "retry", "--dead")
    run(home, "run")
    found = [row for row in rows(home, "rollout", "list") if (row["agent"], row["instance_id"]) == ("oracle", SOLVED)]
    assert [row["resolved"] for row in found] == [True, True]
