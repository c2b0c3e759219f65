"""Reads the record that the pytest plugin wrote, and decides whether it is evidence.

The record's format stands in swefactory/inputs/swefactory_plugin.py. One property: a record that was cut short,
changed, contradicted by the process' exit code or by its own counts, or whose canaries did not fail, yields Void and
never an outcome. Pure. What this cannot see: code under test that finds the key in its own process' memory.
"""

import enum
import hashlib
import hmac
import json
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, cast

from db.enums import Outcome

RAN = 1  # pytest's exit code when tests ran and some failed: the canaries always do


class VoidCause(enum.StrEnum):
    """Why a run is no evidence."""

    NO_RECORD = "no_record"
    NO_PYTEST = "no_pytest"
    TAMPERED = "tampered"
    CUT_SHORT = "cut_short"
    CONTRADICTED = "contradicted"
    INTERRUPTED = "interrupted"
    CANARY_NOT_FAILED = "canary_not_failed"
    OUT_OF_MEMORY = "out_of_memory"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Void:
    """A run that is no evidence."""

    cause: VoidCause
    detail: str


@dataclass(frozen=True)
class TestResult:
    """How one test ended. `message` is the end of its explanation, empty when it passed."""

    __test__ = False
    test_id: str
    outcome: Outcome
    duration_s: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class CollectionError:
    """A file, folder or the whole run that could not be collected."""

    test_id: str
    message: str


@dataclass(frozen=True)
class RunRecord:
    """What an intact record says; canaries left out."""

    outcomes: tuple[TestResult, ...]
    collection_errors: tuple[CollectionError, ...]
    n_collected: int
    versions: Mapping[str, str] = field(default_factory=dict)
    ignored_options: tuple[str, ...] = ()
    measured: Mapping[str, str | float] = field(default_factory=dict)  # now, utc_offset, cpu_share


class _Event(TypedDict, total=False):
    event: str
    id: str
    n: int
    file: str
    when: str
    outcome: str
    xfail: bool
    s: float
    message: str
    exit_code: int
    n_items: int
    n_finished: int
    n_failed: int | None
    now: float
    utc_offset: str
    cpu_share: float
    has_route: bool
    python: str
    pytest: str
    plugin: str
    runner: str
    ignored: list[str]


def read_record(content: bytes, key: str, canary: str, exit_code: int | None) -> RunRecord | Void:
    """The record's outcomes, or why it is no evidence. `exit_code` is that of the process, None when killed."""
    events = _verified(content, key.encode("ascii"))
    if isinstance(events, Void):
        return events
    if void := _incomplete(events, exit_code):
        return void
    record = _assemble(events, f"test_{canary}")
    return _canary_void(record, events, f"test_{canary}", exit_code) or record


# ---------------------------------------------------------------- the chain of lines


def _verified(content: bytes, key: bytes) -> list[_Event] | Void:
    """The events, if every line is chained to the one before it by the key."""
    last, events = "", []
    for number, line in enumerate(content.splitlines(), 1):
        mac, _, text = line.partition(b" ")
        expected = hmac.new(key, last.encode("ascii") + text, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(mac, expected.encode("ascii")):
            return Void(VoidCause.TAMPERED, f"line {number} of the record was not written by the plugin")
        last = expected
        events.append(cast(_Event, json.loads(text)))
    return events


def _incomplete(events: Sequence[_Event], exit_code: int | None) -> Void | None:
    """Whether the record lacks its start or its end, or its end is not the process' end."""
    if not events:
        return Void(VoidCause.NO_RECORD, f"nothing was recorded; the process ended with {exit_code}")
    if events[0]["event"] == "no_pytest":
        return Void(VoidCause.NO_PYTEST, _last_line(events[0]["message"]))
    end = events[-1]
    if events[0]["event"] != "start" or end["event"] != "end":
        return Void(VoidCause.CUT_SHORT, f"the process ended with {exit_code} {_after(events)}")
    if end["exit_code"] != exit_code:
        said = f"pytest ended with {end['exit_code']}, the process with {exit_code}"
        return Void(VoidCause.CONTRADICTED, said)
    return None


def _after(events: Sequence[_Event]) -> str:
    """Where a record breaks off."""
    last = events[-1]
    match last["event"]:
        case "begin":
            return f"in {last['id']}"
        case "phase":
            return f"after {last['when']} of {last['id']}"
        case "item":
            return "before the first test"
        case _:
            return "during collection"


# ---------------------------------------------------------------- outcomes


def _assemble(events: Sequence[_Event], canary_name: str) -> RunRecord:
    items = [event for event in events if event["event"] == "item" and not _is_canary(event, canary_name)]
    results = _merged(_result(item, phases) for item, phases in _by_item(items, events))
    start, configured = events[0], next((event for event in events if event["event"] == "configured"), None)
    return RunRecord(
        outcomes=results,
        collection_errors=_collection_errors(events, canary_name, bool(results)),
        n_collected=len(items),
        versions=_versions(start),
        ignored_options=tuple(configured["ignored"]) if configured else (),
        measured=_measured(start),
    )


def _versions(start: _Event) -> Mapping[str, str]:
    """Of what ran; `runner` is named by the one that is not pytest."""
    found = {name: str(start.get(name, "")) for name in ("python", "pytest", "plugin")}
    return {**found, "runner": start["runner"]} if "runner" in start else found


def _measured(start: _Event) -> Mapping[str, str | float]:
    """The conditions of the run, as the process found them before any code under test was there."""
    found: dict[str, str | float] = {}
    if "now" in start:
        found["now"], found["utc_offset"] = start["now"], start["utc_offset"]
    if "has_route" in start:
        found["has_route"] = float(start["has_route"])
    if "cpu_share" in start:
        found["cpu_share"] = start["cpu_share"]
    return found


def _is_canary(item: _Event, canary_name: str) -> bool:
    return posixpath.basename(item["file"]).startswith((f"{canary_name}.", f"{canary_name}_"))


def _by_item(items: Iterable[_Event], events: Sequence[_Event]) -> Iterable[tuple[_Event, list[_Event]]]:
    phases: dict[int, list[_Event]] = defaultdict(list)
    for event in events:
        if event["event"] == "phase":
            phases[event["n"]].append(event)
    return ((item, phases[item["n"]]) for item in items)


def outcome_of(phases: Sequence[tuple[str, str, bool]]) -> Outcome:
    """One outcome from (when, outcome, xfail) of each phase.

    Any failure wins: in the call it is FAILED, elsewhere (setup, teardown, a lost process) ERROR. PASSED takes all
    three phases, so a test of which only a part was reported is an ERROR.
    """
    if any(outcome not in ("passed", "skipped") for _, outcome, _ in phases):
        in_call = any(when == "call" and outcome == "failed" for when, outcome, _ in phases)
        others = any(when != "call" and outcome != "passed" and outcome != "skipped" for when, outcome, _ in phases)
        return Outcome.FAILED if in_call and not others else Outcome.ERROR
    for _, outcome, xfail in phases:
        if outcome == "skipped":
            return Outcome.XFAILED if xfail else Outcome.SKIPPED
    if {when for when, _, _ in phases} < {"setup", "call", "teardown"}:
        return Outcome.ERROR
    return Outcome.XPASSED if any(xfail for _, _, xfail in phases) else Outcome.PASSED


def _result(item: _Event, phases: Sequence[_Event]) -> TestResult:
    outcome = outcome_of([(phase["when"], phase["outcome"], phase["xfail"]) for phase in phases])
    return TestResult(
        test_id=storable(item["id"]),
        outcome=outcome,
        duration_s=round(sum(phase["s"] for phase in phases), 6),
        message=storable("\n".join(phase["message"] for phase in phases if phase["message"])),
    )


_WORST_FIRST = (
    Outcome.ERROR, Outcome.FAILED, Outcome.SKIPPED, Outcome.XPASSED, Outcome.XFAILED, Outcome.PASSED,
)  # fmt: skip


def _merged(results: Iterable[TestResult]) -> tuple[TestResult, ...]:
    """One result an id, in the order of running: of several tests with the same id the worst outcome counts."""
    found: dict[str, TestResult] = {}
    for result in results:
        other = found.get(result.test_id)
        if other is None or _WORST_FIRST.index(result.outcome) < _WORST_FIRST.index(other.outcome):
            found[result.test_id] = result
    return tuple(found.values())


def storable(text: str) -> str:
    """Text that every database takes: lone surrogates and NUL are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def _collection_errors(events: Sequence[_Event], canary_name: str, ran: bool) -> tuple[CollectionError, ...]:
    """What could not be collected; a run in which pytest gave up before any test counts as one, too."""
    found = [
        CollectionError(storable(event["id"]), storable(event["message"]))
        for event in events
        if event["event"] == "collect_error" and not _is_canary({"file": event["id"]}, canary_name)
    ]
    code = events[-1]["exit_code"]
    if not found and not ran and code not in (0, RAN, 5):
        said = [event["message"] for event in events if event["event"] == "internal_error"]
        found = [CollectionError("", storable(said[-1] if said else f"pytest ended with {code} before any test"))]
    return tuple(found)


# ---------------------------------------------------------------- agreement


def _canary_void(record: RunRecord, events: Sequence[_Event], canary_name: str, code: int | None) -> Void | None:
    """Whether something that passed has no right to. A run in which nothing passed can raise no verdict: it stands."""
    end = events[-1]
    items = [event for event in events if event["event"] == "item"]
    if not any(r.outcome in (Outcome.PASSED, Outcome.XFAILED, Outcome.XPASSED) for r in record.outcomes):
        return None
    if end["n_finished"] < end["n_items"]:
        said = f"pytest ended with {code} after {end['n_finished']} of {end['n_items']} tests"
        return Void(VoidCause.INTERRUPTED, said)
    if not end["n_items"] == len(items) == end["n_finished"]:
        said = f"{len(items)} tests recorded, {end['n_items']} collected, {end['n_finished']} finished"
        return Void(VoidCause.CONTRADICTED, said)
    n_failed = sum(map(_is_failure, events))
    if end.get("n_failed") is not None and end["n_failed"] != n_failed:
        return Void(VoidCause.CONTRADICTED, f"{n_failed} failures recorded, {end['n_failed']} counted by pytest")
    failed = _folders_of_failed_canaries(items, events, canary_name)
    for item, phases in _by_item(items, events):
        folder = posixpath.dirname(item["file"])
        if not _is_canary(item, canary_name) and folder not in failed and any(p["when"] == "call" for p in phases):
            said = f"the tests in {folder or '.'} that must fail were not reported as failed"
            return Void(VoidCause.CANARY_NOT_FAILED, said)
    if code != RAN:
        return Void(VoidCause.INTERRUPTED, f"pytest ended with {code} although tests failed that must fail")
    return None


def _is_failure(event: _Event) -> bool:
    """Whether pytest counts this event as a failure, too."""
    failed = event["event"] == "phase" and event["outcome"] == "failed" and not event["xfail"]
    return failed or event["event"] == "collect_error"


def _folders_of_failed_canaries(items: Iterable[_Event], events: Sequence[_Event], canary_name: str) -> set[str]:
    """The folders all of whose canaries failed."""
    failed: dict[str, list[bool]] = defaultdict(list)
    for item, phases in _by_item((item for item in items if _is_canary(item, canary_name)), events):
        outcome = outcome_of([(phase["when"], phase["outcome"], phase["xfail"]) for phase in phases])
        failed[posixpath.dirname(item["file"])].append(outcome in (Outcome.FAILED, Outcome.ERROR))
    return {folder for folder, all_failed in failed.items() if len(all_failed) >= 3 and all(all_failed)}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
