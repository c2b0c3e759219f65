"""Exports: only what is proven leaves, in the consumers' field names, whole or not at all, the same bytes twice."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from db.engine import session
from db.models import (
    AgentConfig,
    AgentKind,
    Environment,
    ExitStatus,
    Export,
    ExportFormat,
    InstanceStatus,
    PullRequest,
    Repository,
    Rollout,
    TaskInstance,
    Tier,
    Validation,
    ValidationVerdict,
    utc_now,
)
from swefactory.artifacts import LocalArtifacts
from swefactory.certificates import Certificate, LeakReport, host_facts, subject_digest
from swefactory.errors import ArtifactError
from swefactory.exports import swebench, trajectories
from swefactory.exports.writer import record, write_jsonl

SWE_BENCH_FIELDS = {
    "instance_id", "repo", "version", "base_commit", "environment_setup_commit", "patch", "test_patch",
    "problem_statement", "hints_text", "created_at", "FAIL_TO_PASS", "PASS_TO_PASS",
}  # fmt: skip


@pytest.fixture
def artifacts(tmp_path: Path) -> LocalArtifacts:
    return LocalArtifacts(tmp_path / "artifacts")


@pytest.fixture
def filled(catalog: Engine, artifacts: LocalArtifacts) -> Engine:
    """Three instances (validated, candidate, rejected); rollouts on the first: resolved, unresolved, without talk."""
    now = utc_now()
    with session(catalog) as db:
        repository = Repository(name="acme/tool", license="MIT")
        environment = Environment(digest="sha256:e", python_version="3.11", lock_digest="sha256:l", resolved_as_of=now)
        db.add_all([repository, environment])
        db.flush()
        for number, status in enumerate(InstanceStatus, 1):
            times = {"opened_at": now, "merged_at": now, "updated_at": now}
            pull_request = PullRequest(repository_id=repository.id or 0, number=number, **times)
            db.add(pull_request)
            db.flush()
            db.add(
                TaskInstance(
                    instance_id=f"acme__tool-{number}", repository_id=repository.id or 0,
                    pull_request_id=pull_request.id or 0, environment_id=environment.id, status=status,
                    base_commit="b" * 40, patch="p", test_patch="t", problem_statement="it breaks ☃",
                    fail_to_pass=["t.py::a[x y]"], pass_to_pass=["t.py::b"], created_at=now,
                )
            )  # fmt: skip
        db.flush()
        instance = db.exec(select(TaskInstance).where(TaskInstance.status == InstanceStatus.VALIDATED)).one()
        db.add(
            Validation(
                task_instance_id=instance.id or 0, environment_id=environment.id or 0, number=1, sandbox="namespace",
                verdict=ValidationVerdict.VALID, n_runs=3, certificate={"gold": "3/3"}, started_at=now, finished_at=now,
            )
        )  # fmt: skip
        talk = artifacts.put(json.dumps({"messages": [{"role": "user", "content": "fix"}], "tools": []}).encode(), "j")
        for replica, (resolved, digest) in enumerate([(True, talk.digest), (False, talk.digest), (True, None)], 1):
            config = AgentConfig(digest=f"sha256:{replica}", name=f"agent {replica}", kind=AgentKind.OPENHANDS)
            db.add(config)
            db.flush()
            db.add(
                Rollout(
                    task_instance_id=instance.id or 0, agent_config_id=config.id or 0, resolved=resolved,
                    messages_digest=digest, exit_status=ExitStatus.SUBMITTED, model_patch="diff",
                )
            )  # fmt: skip
    return catalog


def test_only_validated_instances_leave_with_swe_benchs_fields_and_their_certificate(filled: Engine) -> None:
    with session(filled) as db:
        rows = list(swebench.rows(db))
    assert [row["instance_id"] for row in rows] == ["acme__tool-2"]
    row = rows[0]
    assert row.keys() >= SWE_BENCH_FIELDS
    assert json.loads(str(row["FAIL_TO_PASS"])) == ["t.py::a[x y]"]
    assert row["certificate"] == {"gold": "3/3"}


def test_only_resolved_conversations_leave_and_say_which_tests_confirmed_them(
    filled: Engine, artifacts: LocalArtifacts
) -> None:
    with session(filled) as db:
        rows = list(trajectories.rows(db, artifacts))
    assert [(row["agent"], row["confirmed_by"]) for row in rows] == [("agent 1", ["t.py::a[x y]", "t.py::b"])]
    assert rows[0]["messages"] == [{"role": "user", "content": "fix"}]


def test_the_same_catalog_gives_the_same_bytes(filled: Engine, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        with session(filled) as db:
            written.append(write_jsonl(swebench.rows(db), tmp_path / name / "swebench.jsonl"))
    first, second = (item.path.read_bytes() for item in written)
    assert first == second
    assert written[0].sha256 == hashlib.sha256(first).hexdigest()
    assert "☃" in first.decode()


def test_a_row_that_fails_leaves_the_earlier_export_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl([{"n": 1}], path)

    def rows():  # type: ignore[no-untyped-def]
        yield {"n": 2}
        raise ArtifactError("the second row's file is damaged")

    with pytest.raises(ArtifactError):
        write_jsonl(rows(), path)
    assert path.read_text() == '{"n": 1}\n'
    assert [item.name for item in tmp_path.iterdir()] == ["rows.jsonl"]


def test_an_export_is_noted_once_for_each_place(filled: Engine, tmp_path: Path) -> None:
    for _ in range(2):
        with session(filled) as db:
            record(db, ExportFormat.SWEBENCH, write_jsonl(swebench.rows(db), tmp_path / "swebench.jsonl"))
    with session(filled) as db:
        assert [(row.n_rows, row.format) for row in db.exec(select(Export))] == [(1, ExportFormat.SWEBENCH)]


def certified(db: Session, **other: object) -> None:
    """Gives the validated instance a certificate of format 2 that holds, but for `other`."""
    instance = db.exec(select(TaskInstance).where(TaskInstance.status == InstanceStatus.VALIDATED)).one()
    validation = db.exec(select(Validation)).one()
    now = utc_now()
    facts: dict[str, Any] = {
        "instance_id": instance.instance_id, "gold": "3/3", "empty": "0/3", "tier": Tier.BRONZE, "n_runs": 3,
        "subject": subject_digest(instance.base_commit, instance.patch, instance.test_patch), "n_void": 0,
        "orders": ("default",), "conditions": {}, "not_run": (), "n_tests": 2, "n_fail_to_pass": 1,
        "n_error_to_pass": 0, "n_flaky": 0, "unstable": {}, "flip_rate_upper": 0.63, "leaks": LeakReport(),
        "environment_digest": "sha256:e", "lock_digest": "sha256:l", "python": "3", "pytest": "9", "plugin": "2",
        "swefactory": "0", "host": host_facts("namespace"), "left_out": (), "started_at": now, "finished_at": now,
    }  # fmt: skip
    validation.certificate = Certificate(**{**facts, **other}).model_dump(mode="json")
    db.add(validation)
    db.flush()


def test_an_instance_with_a_certificate_that_holds_is_not_refused(filled: Engine) -> None:
    with session(filled) as db:
        certified(db)
        assert swebench.uncertified(db, max_age_days=1) == {}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"format": 1}, "of format 1"),
        ({"subject": "sha256:another"}, "not those of its certificate"),
        ({"environment_digest": "sha256:another"}, "environment is not that"),
        ({"gold": "2/3"}, "held in 2/3"),
        ({"empty": "1/3"}, "no patch in 1/3"),
        ({"leaks": None}, "not audited"),
        ({"leaks": LeakReport(findings=("x",))}, "leaks the fix"),
        ({"finished_at": datetime(2020, 1, 1, tzinfo=UTC)}, "older than 30 days"),
    ],
)
def test_an_instance_whose_certificate_does_not_hold_is_refused_and_said_why(
    filled: Engine, other: dict[str, object], why: str
) -> None:
    with session(filled) as db:
        certified(db, **other)
        refused = swebench.uncertified(db, max_age_days=30)
        assert list(refused) == ["acme__tool-2"]
        assert why in refused["acme__tool-2"]
        assert list(swebench.rows(db, refused)) == []


def test_a_certificate_of_an_older_version_is_refused(filled: Engine) -> None:
    with session(filled) as db:
        assert "of format None" in swebench.uncertified(db)["acme__tool-2"]


def test_a_suspicious_rollout_does_not_leave_unless_told(filled: Engine, artifacts: LocalArtifacts) -> None:
    with session(filled) as db:
        rollout = db.exec(select(Rollout).where(col(Rollout.resolved).is_(True))).first()
        assert rollout is not None
        rollout.suspicious = ["walks_memory"]
        db.add(rollout)
        db.flush()
        assert list(trajectories.rows(db, artifacts)) == []
        assert len(list(trajectories.rows(db, artifacts, suspicious=True))) == 1
