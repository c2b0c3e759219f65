"""Any node id: told by the plugin, written by the runner, read from the record, stored, and graded as the same test."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlmodel import Session, select

from db.enums import Outcome, RunState, RunStatus
from db.models import TestOutcome, TestRun
from swefactory.evaluation import TestRunResult
from swefactory.grading import RunSummary, grade, judge
from swefactory.inputs.swefactory_plugin import Recorder
from swefactory.inputs.swefactory_run import make_writer
from swefactory.instance_runs import StoredRun, save_runs
from swefactory.run_record import RunRecord, read_record, storable
from tests.catalogs import BOTH, catalog_url, upgraded
from tests.scripted_sandbox import KEY

CANARY = "0a1b2c3d4e5f"
WORST_FIRST = [Outcome.FAILED, Outcome.SKIPPED, Outcome.PASSED]

odd = st.text(st.characters(exclude_categories=()), max_size=20)  # surrogates, NUL and controls, too
names = st.one_of(
    odd,
    st.sampled_from([
        "test_a[x-y]", "test_a[[::]::", "test a", "test_a\nPASSED", "\r\n\u2028\x85\x0b\x1c", "\ud800", "\\ud800",
        "\x00", "\\x00", "é", "e\u0301", "🎉" * 9, "a" * 9000, "[" * 50, "", " ", '"}\n{"event": "end"', "\ufeff",
    ]),
)  # fmt: skip
tests_run = st.lists(st.tuples(names, st.sampled_from(WORST_FIRST)), min_size=1, max_size=8)


@pytest.fixture(params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = upgraded(catalog_url(request.param, request))
    yield made
    made.dispose()


def recorded(found: list[tuple[str, Outcome]]) -> bytes:
    """The record that the real plugin and the real writer make of such a run, with its canaries."""
    every = [(f"t/test_a.py::{name}", "t/test_a.py", outcome) for name, outcome in found]
    every += [(f"t/test_{CANARY}.py::c{n}", f"t/test_{CANARY}.py", Outcome.FAILED) for n in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record"
        write = make_writer(str(path), KEY.encode())
        recorder = Recorder(write, CANARY, "default", folder)
        items = [SimpleNamespace(nodeid=i, path=Path(folder) / file) for i, file, _ in every]
        write("start", python="3.12", pytest="9", plugin="2")
        recorder.pytest_collection_finish(SimpleNamespace(items=items, testsfailed=0))
        for item, (_, _, outcome) in zip(items, every, strict=True):
            around = recorder.pytest_runtest_protocol(item)
            next(around)
            for when in ("setup", "call", "teardown"):
                word = outcome.value if when == "call" else "passed"
                said = item.nodeid if word != "passed" else ""
                report: Any = SimpleNamespace(nodeid=item.nodeid, when=when, outcome=word, duration=0.1, longrepr=said)
                recorder.pytest_runtest_logreport(report)
            next(around, None)
        write("end", exit_code=1, n_items=recorder.n_items, n_finished=recorder.n_finished, n_failed=None)
        return path.read_bytes()


def worst(found: list[tuple[str, Outcome]]) -> dict[str, Outcome]:
    """What must be known in the end: of tests with one id, the worst."""
    expected: dict[str, Outcome] = {}
    for name, outcome in found:
        test_id = storable(f"t/test_a.py::{name}")
        expected[test_id] = min(outcome, expected.get(test_id, outcome), key=WORST_FIRST.index)
    return expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tests_run)
def test_any_node_id_is_the_same_test_from_the_plugin_to_the_grade(
    engine: Engine, found: list[tuple[str, Outcome]]
) -> None:
    record = read_record(recorded(found), KEY, CANARY, 1)
    assert isinstance(record, RunRecord)
    assert record.n_collected == len(found)
    assert {r.test_id: r.outcome for r in record.outcomes} == worst(found)

    stored, listed = _stored_and_read(engine, record)
    assert stored == worst(found)
    fixed = [test_id for test_id, outcome in stored.items() if outcome is Outcome.PASSED]
    report = judge([RunSummary(dict.fromkeys(fixed, Outcome.FAILED))], [RunSummary(stored)])
    assert list(report.fail_to_pass) == sorted(fixed)
    assert grade(stored, listed, ()).resolved is bool(listed)
    assert set(listed) == set(fixed)


def _stored_and_read(engine: Engine, record: RunRecord) -> tuple[dict[str, Outcome], list[str]]:
    """The outcomes of a run after a stay in the catalog, and those that passed after one in a list of ids there."""
    result = TestRunResult(RunStatus.COMPLETED, "default", outcomes=record.outcomes)
    with Session(engine) as db:
        save_runs(db, [StoredRun(RunState.AFTER, result, None)])
        row = db.exec(select(TestRun)).one()
        row.conditions = {"ids": [r.test_id for r in record.outcomes if r.outcome is Outcome.PASSED]}
        db.flush()
        db.expire_all()
        found = {each.test_id: each.outcome for each in db.exec(select(TestOutcome))}
        listed = list(db.exec(select(TestRun)).one().conditions["ids"])
        db.rollback()
    return found, listed


@settings(max_examples=25, deadline=None)
@given(st.lists(names, min_size=2, max_size=4))
def test_two_ids_that_are_stored_alike_never_pass_for_each_other(found: list[str]) -> None:
    """A lone surrogate and its escape are one text in the catalog: then the worse outcome stands for both."""
    for order in itertools.permutations([(found[0], Outcome.FAILED), *((name, Outcome.PASSED) for name in found[1:])]):
        record = read_record(recorded(list(order)), KEY, CANARY, 1)
        assert isinstance(record, RunRecord)
        outcomes = {r.test_id: r.outcome for r in record.outcomes}
        assert outcomes[storable(f"t/test_a.py::{found[0]}")] is Outcome.FAILED
