"""The record of a run: what is evidence, and every way in which it is not."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.enums import Outcome
from swefactory.run_record import RunRecord, Void, outcome_of, read_record, storable
from tests.scripted_sandbox import KEY, Events, written

CANARY = "0a1b2c3d4e5f"


def phases(n: int, test_id: str, call: str) -> Events:
    return [
        {"event": "phase", "n": n, "id": test_id, "when": when, "outcome": call if when == "call" else "passed",
         "xfail": False, "s": 0.5, "message": "" if call == "passed" or when != "call" else "said"}
        for when in ("setup", "call", "teardown")
    ]  # fmt: skip


def a_run(canary: str = "failed", exit_code: int = 1) -> Events:
    """The events of a sound run: one test that passes, three canaries."""
    items = [{"event": "item", "n": 0, "id": "t/test_a.py::test_a", "file": "t/test_a.py"}]
    items += [
        {"event": "item", "n": n, "id": f"t/test_{CANARY}.py::c{n}", "file": f"t/test_{CANARY}.py"} for n in (1, 2, 3)
    ]
    return [
        {"event": "start", "python": "3.12.1", "pytest": "9.0", "plugin": "1"},
        {"event": "configured", "rootdir": "/testbed", "ignored": ["--cov"]},
        *items,
        *phases(0, "t/test_a.py::test_a", "passed"),
        *(event for n in (1, 2, 3) for event in phases(n, f"t/test_{CANARY}.py::c{n}", canary)),
        {"event": "end", "exit_code": exit_code, "n_items": 4, "n_finished": 4},
    ]


def test_a_sound_record_yields_the_outcomes_without_the_canaries() -> None:
    record = read_record(written(a_run()), KEY, CANARY, 1)
    assert isinstance(record, RunRecord)
    assert [(r.test_id, r.outcome, r.duration_s) for r in record.outcomes] == [("t/test_a.py::test_a", "passed", 1.5)]
    assert (record.n_collected, record.ignored_options, record.versions["pytest"]) == (1, ("--cov",), "9.0")


def _without_canaries(events: Events) -> Events:
    kept = [e for e in events if CANARY not in e.get("id", "")]
    return [*kept[:-1], {**kept[-1], "n_items": 1, "n_finished": 1}]


@pytest.mark.parametrize(
    ("change", "exit_code", "cause"),
    [
        (lambda events: [], 1, "no_record"),
        (lambda events: [{"event": "no_pytest", "message": "x\nImportError: pytest"}], 1, "no_pytest"),
        (lambda events: events[:-1], 0, "cut_short"),
        (lambda events: events[:2], 139, "cut_short"),
        (lambda events: events[1:], 1, "cut_short"),
        (lambda events: events, 0, "contradicted"),
        (lambda events: events, None, "contradicted"),
        (lambda events: [*events[:-1], {**events[-1], "n_items": 3}], 1, "contradicted"),
        (lambda events: [*events[:-1], {**events[-1], "n_items": 3, "n_finished": 3}], 1, "contradicted"),
        (lambda events: [*events[:-1], {**events[-1], "n_finished": 3}], 1, "interrupted"),
        (lambda events: [*events[:-1], {**events[-1], "exit_code": 2}], 2, "interrupted"),
        (lambda events: a_run(canary="passed", exit_code=0), 0, "canary_not_failed"),
        (lambda events: a_run(canary="passed"), 1, "canary_not_failed"),
        (lambda events: a_run(canary="skipped"), 1, "canary_not_failed"),
        (_without_canaries, 1, "canary_not_failed"),
    ],
)
def test_a_record_that_is_no_evidence_is_void(
    change: Callable[[Events], Events], exit_code: int | None, cause: str
) -> None:
    found = read_record(written(change(a_run())), KEY, CANARY, exit_code)
    assert isinstance(found, Void)
    assert found.cause == cause


def test_one_canary_of_three_that_passes_is_enough_to_be_void() -> None:
    events = a_run()
    for event in events:
        if event.get("n") == 2 and event.get("when") == "call":
            event["outcome"] = "passed"
    found = read_record(written(events), KEY, CANARY, 1)
    assert isinstance(found, Void)
    assert found.cause == "canary_not_failed"


def test_a_canary_of_another_folder_says_nothing() -> None:
    events = [{**e, "file": e["file"].replace("t/test_a", "u/test_a")} if "file" in e else e for e in a_run()]
    found = read_record(written(events), KEY, CANARY, 1)
    assert isinstance(found, Void)
    assert "u that must fail" in found.detail


def test_a_run_in_which_nothing_passed_stands_without_canaries() -> None:
    events = [
        *a_run()[:2],
        {"event": "collect_error", "id": "t/test_a.py", "message": "no module"},
        {"event": "end", "exit_code": 2, "n_items": 0, "n_finished": 0},
    ]
    record = read_record(written(events), KEY, CANARY, 2)
    assert isinstance(record, RunRecord)
    assert [error.test_id for error in record.collection_errors] == ["t/test_a.py"]


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["drop", "repeat", "swap", "edit"]))
def test_a_line_that_anybody_touches_is_seen(at: int, other: int, how: str) -> None:
    lines = written(a_run()).splitlines(keepends=True)
    at, other = at % len(lines), other % len(lines)
    changed = list(lines)
    match how:
        case "drop":
            del changed[at]
        case "repeat":
            changed.insert(other, lines[at])
        case "swap":
            changed[at], changed[other] = changed[other], changed[at]
        case "edit":
            changed[at] = changed[at].replace(b'"event"', b'"Event"')
    found = read_record(b"".join(changed), KEY, CANARY, 1)
    assert isinstance(found, Void) is (changed != lines)


@given(st.binary(max_size=60), st.booleans())
def test_bytes_from_elsewhere_never_become_outcomes(noise: bytes, at_end: bool) -> None:
    record = written(a_run())
    content = record + noise if at_end else noise + b"\n" + record
    found = read_record(content, KEY, CANARY, 1)
    assert isinstance(found, Void) or (at_end and not noise)


def test_a_record_made_with_another_key_is_void() -> None:
    found = read_record(written(a_run(), "x" * 64), KEY, CANARY, 1)
    assert isinstance(found, Void)
    assert found.cause == "tampered"


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        ([("setup", "passed", False), ("call", "passed", False), ("teardown", "passed", False)], Outcome.PASSED),
        ([("setup", "passed", False), ("call", "passed", True), ("teardown", "passed", False)], Outcome.XPASSED),
        ([("setup", "passed", False), ("call", "skipped", True), ("teardown", "passed", False)], Outcome.XFAILED),
        ([("setup", "skipped", False), ("teardown", "passed", False)], Outcome.SKIPPED),
        ([("setup", "passed", False), ("call", "failed", False), ("teardown", "passed", False)], Outcome.FAILED),
        ([("setup", "passed", False), ("call", "failed", False), ("teardown", "failed", False)], Outcome.ERROR),
        ([("setup", "failed", False), ("teardown", "passed", False)], Outcome.ERROR),
        ([("setup", "passed", False), ("call", "rerun", False), ("teardown", "passed", False)], Outcome.ERROR),
        ([("call", "passed", False)] * 2 + [("call", "failed", False)], Outcome.FAILED),
        ([("call", "passed", False)], Outcome.ERROR),
        ([], Outcome.ERROR),
    ],
)  # fmt: skip
def test_one_outcome_comes_of_all_phases(found: list[tuple[str, str, bool]], outcome: Outcome) -> None:
    assert outcome_of(found) is outcome


@given(st.text(st.characters(exclude_categories=())))
def test_stored_text_is_what_every_database_takes(text: str) -> None:
    assert "\x00" not in storable(text)
    storable(text).encode()
