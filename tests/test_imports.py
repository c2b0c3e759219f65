"""Imports: a line is an instance or a finding, held to its tests; what was exported comes back the same."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlmodel import select

from db.engine import session
from db.enums import InstanceStatus, JobState, RejectReason, StageName, ValidationVerdict
from db.models import Issue, Job, PullRequest, PullRequestIssue, Repository, TaskInstance, Validation
from swefactory.benchmark_lists import load_lists
from swefactory.errors import Rejected
from swefactory.exports import swebench_folder
from swefactory.exports.folder import json_line
from swefactory.exports.image_sources import Images
from swefactory.exports.instance_images import ImageSource
from swefactory.exports.subjects import Choice
from swefactory.instance_imports import Fate, Imported, ImportTerms, import_instances
from swefactory.protocols import ProjectLayout, Recipe
from swefactory.published_instances import Published, Unusable, published, read
from swefactory.runners import PYTEST
from swefactory.sandbox_protocols import Materialised
from swefactory.stage import Services
from swefactory.stages import candidates, environments
from tests.catalogs import BOTH, catalog_url, upgraded
from tests.fake_sandbox import HERE, diff_of, host_services
from tests.instance_rows import add_instance
from tests.test_stage_validation import BASE, FIXED, validate_once

TESTS = {"tests/test_calc.py": BASE["tests/test_calc.py"] + (
    "import pytest\n@pytest.mark.parametrize('a', ['1 and 1', '2'])\n"
    "def test_add(a): assert add(1, 1) == 2\n"
)}  # fmt: skip
ROW: dict[str, Any] = {
    "instance_id": "acme__calc-7", "repo": "acme/calc", "base_commit": "a" * 40, "patch": diff_of(BASE, BASE | FIXED),
    "test_patch": diff_of(BASE, BASE | TESTS), "FAIL_TO_PASS": ["tests/test_calc.py::test_add[2]"],
    "PASS_TO_PASS": '["tests/test_calc.py::test_zero"]', "problem_statement": "it subtracts",
    "created_at": "2024-05-01T12:00:00Z",
}  # fmt: skip


def terms(**more: Any) -> ImportTerms:
    return ImportTerms(**{"source": "rows.jsonl", "lists": load_lists(), "clone_from": "file:///{repo}", **more})


def taken(engine: Engine, *rows: dict[str, Any] | bytes, **more: Any) -> list[Imported]:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    return list(import_instances(engine, lines, terms(**more)))


@pytest.mark.parametrize("kind", BOTH)
def test_a_published_instance_becomes_a_candidate_with_its_tests_and_an_environment_job(
    kind: str, request: pytest.FixtureRequest
) -> None:
    engine = upgraded(catalog_url(kind, request))
    row = ROW | {"issue_url": "https://example.org/acme/calc/issues/3", "patch": ROW["patch"].removesuffix("\n")}
    assert [each.fate for each in taken(engine, row, dry_run=True)] == [Fate.ADDED]
    assert [each.fate for each in taken(engine, row)] == [Fate.ADDED]
    assert [each.fate for each in taken(engine, row)] == [Fate.UNCHANGED]
    with session(engine) as db:
        instance = db.exec(select(TaskInstance)).one()
        assert (instance.status, instance.fail_to_pass) == (InstanceStatus.CANDIDATE, ROW["FAIL_TO_PASS"])
        assert instance.published["PASS_TO_PASS"] == ["tests/test_calc.py::test_zero"]
        assert (instance.patch, instance.test_files) == (ROW["patch"], ["tests/test_calc.py"])
        assert [(job.stage, job.state) for job in db.exec(select(Job))] == [(StageName.ENVIRONMENT, JobState.TODO)]
        assert db.exec(select(Repository.clone_url)).all() == ["file:///acme/calc"]
        assert (db.exec(select(PullRequest.number)).one(), db.exec(select(Issue.number)).one()) == (7, 3)
    engine.dispose()


BROKEN = {
    "no line of JSON": b"{",
    "no JSON object": b"[1]",
    "instance_id is no text": ROW | {"instance_id": 7},
    "cannot name a folder": ROW | {"instance_id": "../calc-7"},
    "is no owner/name": ROW | {"repo": "calc"},
    "no whole commit id": ROW | {"base_commit": "HEAD"},
    "patch is absent": ROW | {"patch": None},
    "patch does not parse": ROW | {"patch": "@@ nonsense"},
    "test_patch does not parse": ROW | {"test_patch": ROW["test_patch"].rsplit("\n", 2)[0]},
    "FAIL_TO_PASS is absent": {name: value for name, value in ROW.items() if name != "FAIL_TO_PASS"},
    "FAIL_TO_PASS is empty": ROW | {"FAIL_TO_PASS": "[]"},
    "FAIL_TO_PASS is no list of texts": ROW | {"FAIL_TO_PASS": [1]},
    "PASS_TO_PASS is a text and no JSON": ROW | {"PASS_TO_PASS": "tests"},
    "is in FAIL_TO_PASS and in PASS_TO_PASS": ROW | {"PASS_TO_PASS": ROW["FAIL_TO_PASS"]},
    "cannot be told": ROW | {"instance_id": "acme__calc"},
    "is no time": ROW | {"created_at": "yesterday"},
    "half a character": ROW | {"problem_statement": "\ud800"},
    "is not below the repository's root": ROW | {"test_files": ["../../x.py"]},
}


def test_what_is_no_instance_is_a_finding_that_names_its_line_and_the_others_are_taken(catalog: Engine) -> None:
    found = taken(catalog, *BROKEN.values(), b"\n", ROW, ROW)
    assert len(found) == len(BROKEN) + 2
    for line, (why, each) in enumerate(zip(BROKEN, found, strict=False), 1):
        assert (each.line, each.fate) == (line, Fate.REFUSED), why
        assert why in each.why
    n = len(BROKEN) + 2
    assert found[-2:] == [
        Imported(n, "acme__calc-7", Fate.ADDED),
        Imported(n + 1, "acme__calc-7", Fate.REFUSED, f"line {n} has the same instance_id"),
    ]


def test_conflicts_with_the_catalog_are_findings_and_leave_it_as_it_was(catalog: Engine) -> None:
    assert "no repository acme/calc" in taken(catalog, ROW, clone_from="")[0].why
    assert taken(catalog, ROW)[0].fate is Fate.ADDED
    (other,) = taken(catalog, ROW | {"problem_statement": "another", "FAIL_TO_PASS": ["a.py::b"]})
    assert (other.fate, other.why) == (
        Fate.REFUSED, "the catalog has it with another problem_statement, FAIL_TO_PASS",
    )  # fmt: skip
    (taken_by,) = taken(catalog, ROW | {"instance_id": "calc-twice-7"})
    assert "pull request 7 of acme/calc is acme__calc-7 already" in taken_by.why
    with session(catalog) as db:
        assert db.exec(select(TaskInstance.problem_statement)).all() == ["it subtracts"]


def test_a_benchmarks_instance_is_taken_and_marked(catalog: Engine) -> None:
    listed = next(row for known in load_lists() for row in known.rows if row.base_commit)
    row = ROW | {"instance_id": listed.instance_id, "repo": listed.repo, "base_commit": listed.base_commit}
    (found,) = taken(catalog, row)
    assert found.fate is Fate.ADDED
    assert "never exported to train on" in found.why
    with session(catalog) as db:
        assert db.exec(select(TaskInstance)).one().decontamination["matched"]


def test_a_crawl_that_finds_the_pull_request_leaves_the_import_alone(catalog: Engine) -> None:
    taken(catalog, ROW)
    with session(catalog) as db:
        pull_request = db.exec(select(PullRequest)).one()
        verdict = Rejected(RejectReason.NO_LINKED_ISSUE, "it names none")
        assert candidates.save(db, pull_request.id or 0, verdict).rejected is None
        assert db.exec(select(TaskInstance)).one().status is InstanceStatus.CANDIDATE


# ---------------------------------------------------------------- there and back


@pytest.fixture
def origin(catalog: Engine, tmp_path: Path) -> tuple[Services, Path]:
    """A validated instance in `catalog`, and where its export lies."""
    services = host_services(tmp_path / "home", test_timeout_s=30)
    number = add_instance(catalog, services, tmp_path, BASE, fixed=FIXED, tests=TESTS)
    with session(catalog) as db:
        instance, pull_request = db.get_one(TaskInstance, number), db.exec(select(PullRequest)).one()
        instance.problem_statement, instance.hints_text = "it subtracts ☃", "a hint"
        instance.statement_strips, instance.license, instance.version = ["commit"], "MIT", "1"
        instance.decontamination = {"version": 1, "matched": [], "lists": [asdict(known.id) for known in load_lists()]}
        instance.environment_setup_commit = instance.base_commit
        instance.created_at = datetime(2024, 5, 1, tzinfo=UTC)
        pull_request.url = "https://example.org/acme/calc/pull/7"
        issue = Issue(repository_id=instance.repository_id, number=3, url="https://example.org/acme/calc/issues/3")
        db.add_all([instance, pull_request, issue])
        db.flush()
        db.add(PullRequestIssue(pull_request_id=pull_request.id or 0, issue_id=issue.id or 0))
    validate_once(catalog, services, number)
    return services, exported(catalog, services, tmp_path / "there")


def exported(engine: Engine, services: Services, out: Path) -> Path:
    choice = Choice(uncertified=True)  # its leak audit knows no host without a sandbox
    return swebench_folder.write(engine, Images(ImageSource.REBUILD, services), choice, out).target / "swebench.jsonl"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Engine]:
    engine = upgraded(f"sqlite:///{tmp_path / 'another.db'}")
    yield engine
    engine.dispose()


def environment_of(services: Services) -> environments.EnvironmentOutput:
    """What the environment stage would find in the same place; building one needs a registry."""
    recipe = Recipe(
        HERE.python_version, (), (), (), test_command=PYTEST, environment_variables={"COLOUR": "red"},
        layout=ProjectLayout("calc", "1"), as_of=datetime(2024, 5, 1, tzinfo=UTC),
    )  # fmt: skip
    lock = services.artifacts.put(HERE.lock.encode(), "text/plain")
    return environments.EnvironmentOutput(
        recipe, HERE, 0, recipe.as_of, lock, "host", Materialised("here", 0, 0.0, built=True)
    )


def test_an_export_that_is_imported_where_it_came_from_comes_out_with_the_same_bytes(
    origin: tuple[Services, Path], catalog: Engine, tmp_path: Path
) -> None:
    services, there = origin
    (found,) = import_instances(catalog, there.read_bytes().splitlines(), terms())
    assert found.fate is Fate.UNCHANGED
    again = exported(catalog, services, tmp_path / "again").parent
    assert (again / "SHA256SUMS").read_bytes() == (there.parent / "SHA256SUMS").read_bytes()


def test_export_import_validate_and_export_gives_the_same_bytes_but_for_what_the_runs_measured(
    origin: tuple[Services, Path], empty: Engine, tmp_path: Path
) -> None:
    services, there = origin
    upstream = f"file://{tmp_path / 'upstream'}"
    (found,) = import_instances(empty, there.read_bytes().splitlines(), terms(clone_from=upstream))
    assert (found.fate, found.why) == (Fate.ADDED, "")
    with session(empty) as db:
        environments.save(db, 1, environment_of(services))
    instance, saved = validate_once(empty, services, 1)
    assert saved.rejected is None, saved.rejected
    assert instance.fail_to_pass == [f"tests/test_calc.py::test_add[{a}]" for a in ("1 and 1", "2")]
    back = exported(empty, services, tmp_path / "back")
    before, after = json.loads(there.read_bytes()), json.loads(back.read_bytes())
    assert all(before.values()), f"each field is compared with something in it, {before}"
    # How many runs had little CPU is measured in them: on a busy machine it is not always had.
    measured = {name: before["certificate"][name] for name in ("started_at", "finished_at", "conditions", "not_run")}
    assert json_line(after | {"certificate": after["certificate"] | measured}) == there.read_bytes()


def test_an_import_whose_tests_are_not_confirmed_is_rejected_and_says_which(
    origin: tuple[Services, Path], empty: Engine, tmp_path: Path
) -> None:
    services, there = origin
    row = json.loads(there.read_bytes())
    row |= {"FAIL_TO_PASS": [*json.loads(row["FAIL_TO_PASS"])[:1], "tests/test_calc.py::test_gone"], "PASS_TO_PASS": []}
    taken(empty, row, clone_from=f"file://{tmp_path / 'upstream'}")
    with session(empty) as db:
        environments.save(db, 1, environment_of(services))
    instance, saved = validate_once(empty, services, 1)
    assert saved.rejected is not None
    assert (saved.rejected.reason, instance.status) == (RejectReason.PUBLISHED_TESTS_DIFFER, InstanceStatus.REJECTED)
    assert "tests/test_calc.py::test_gone" in saved.rejected.detail
    with session(empty) as db:
        assert db.exec(select(Validation.verdict)).one() is ValidationVerdict.REJECTED


# ---------------------------------------------------------------- anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted({*ROW, "test_files", "pr_url", "issue_url", "pull_number"})), JSON))
def test_whatever_stands_in_a_field_is_an_instance_or_a_sentence(fields: dict[str, Any]) -> None:
    try:
        found = published(ROW | fields)
    except Unusable:
        return
    assert isinstance(found, Published)
    assert found.fail_to_pass
    assert 0 < found.number < 2**31


@given_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=30), max_size=4))
def test_any_bytes_are_lines_with_their_numbers(lines: list[bytes]) -> None:
    found = list(read(lines))
    assert [line.number for line in found] == [n for n, line in enumerate(lines, 1) if line.strip()]
    assert all(isinstance(line.found, Unusable) for line in found)
