"""Trajectories: read from events, told in the forms of others, judged fit or not, and searched for cheating."""

import json
from collections.abc import Callable

import pytest

from db.enums import FlagKind
from swefactory.cheat_flags import flags
from swefactory.errors import UsageError
from swefactory.journals import Step
from swefactory.trajectories import VERSION, read
from swefactory.trajectory_filters import FormatFault, judge, token_counter
from swefactory.trajectory_forms import ATIF_VERSION, AtifAgent, to_atif, to_messages
from tests.trajectory_events import Events

COUNT = token_counter()
GIT, DOWNLOAD, TEST, RUNNER = (
    FlagKind.HISTORY_DIGGING, FlagKind.PACKAGE_DOWNLOAD, FlagKind.TEST_EDIT, FlagKind.RUNNER_EDIT,
)  # fmt: skip


def solved() -> Events:
    return Events().runs("ls", "a.py").calls("terminal", error="no such parameter", raw='{"nope": 1}').finishes()


# ---------------------------------------------------------------- forms


def test_messages_are_openais_with_arguments_as_text_or_as_objects() -> None:
    trajectory = read(solved().lines)
    messages = to_messages(trajectory)
    assert [message["role"] for message in messages] == ["system", "user", *["assistant", "tool"] * 3]
    assert messages[2] == {
        "role": "assistant",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "terminal", "arguments": '{"command": "ls"}'}}
        ],
    }
    assert messages[3] == {"role": "tool", "content": "a.py", "tool_call_id": "call_1", "name": "terminal"}
    as_objects = to_messages(trajectory, arguments="dict")
    assert as_objects[2]["tool_calls"][0]["function"]["arguments"] == {"command": "ls"}


def test_calls_of_one_answer_are_one_message() -> None:
    lines = Events().runs("ls", "a").runs("pwd", "b").finishes().lines
    together = [line.replace("reply-2", "reply-1") for line in lines]
    second_call, first_answer = together.pop(4), together[3]
    together.insert(3, second_call)
    assert json.loads(first_answer)["kind"] == "ObservationEvent"
    messages = to_messages(read(together))
    assert [message["role"] for message in messages[2:]] == ["assistant", "tool", "tool", "assistant", "tool"]
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["call_1", "call_2"]


def test_atif_counts_its_steps_and_keeps_answers_errors_and_tokens() -> None:
    steps = [Step(1, "reply-1", 4, n_prompt_tokens=100, n_completion_tokens=10, n_cached_tokens=40, cost_usd=0.5)]
    told = to_atif(read(solved().lines), AtifAgent("openhands", "1.58.0", "m"), session_id="o__r-1.1", steps=steps)
    assert (told["schema_version"], [step["step_id"] for step in told["steps"]]) == (ATIF_VERSION, [1, 2, 3, 4, 5])
    assert [step["source"] for step in told["steps"]] == ["system", "user", "agent", "agent", "agent"]
    first, failed = told["steps"][2], told["steps"][3]
    assert first["tool_calls"] == [
        {"tool_call_id": "call_1", "function_name": "terminal", "arguments": {"command": "ls"}}
    ]
    assert first["observation"] == {"results": [{"source_call_id": "call_1", "content": "a.py"}]}
    assert (first["metrics"]["cached_tokens"], told["final_metrics"]["total_cost_usd"]) == (40, 0.5)
    assert failed["observation"]["results"][0]["extra"] == {"is_error": True}


def test_the_native_form_is_versioned_and_says_which_event_each_entry_is() -> None:
    told = read(solved().lines).as_json()
    assert told["format"] == VERSION
    assert [entry["event_number"] for entry in told["entries"]] == list(range(8))
    assert json.loads(json.dumps(told)) == told


def test_texts_are_those_on_the_wire_where_the_conversation_is_at_hand() -> None:
    lines = Events().runs("ls", "a.py").finishes().lines
    messages = to_messages(read(lines))
    messages[3]["content"] = "a.py\n[exit code 0]"
    assert to_messages(read(lines, {"messages": messages, "tools": []})) == messages
    assert to_messages(read(lines, {"messages": messages[:-1]}))[3]["content"] == "a.py", "another conversation"


# ---------------------------------------------------------------- fitness


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (solved, None),
        (Events, FormatFault.NO_ANSWER),
        (lambda: solved().adds("Condensation"), FormatFault.CONDENSED),
        (lambda: Events().calls("terminal", None, command="ls").finishes(), FormatFault.UNANSWERED_CALL),
        (lambda: Events().runs("ls").calls("terminal", "x", call_id="call_1").finishes(), FormatFault.REPEATED_CALL_ID),
        (lambda: Events().runs("ls").calls("terminal", raw="{").finishes(), FormatFault.UNREADABLE_ARGUMENTS),
        (lambda: Events().runs("ls"), FormatFault.NOT_FINISHED),
        (lambda: Events().runs("ls").finishes().says("assistant", "And?"), FormatFault.NOT_FINISHED),
        (lambda: Events().calls("terminal", error="no", x=1).finishes(), FormatFault.ONLY_ERRORS),
        (lambda: Events().says("assistant", "with [redacted]").runs("ls").finishes(), FormatFault.REDACTED),
        (lambda: Events().runs("ls", "x" * 200_000).finishes(), FormatFault.TOO_LONG),
    ],
)
def test_a_trajectory_is_fit_or_dropped_for_one_reason(make: Callable[[], Events], fault: FormatFault | None) -> None:
    assert judge(read(make().lines), COUNT).fault is fault


def test_a_tool_that_was_not_offered_is_a_fault() -> None:
    tools = [{"type": "function", "function": {"name": "finish"}}]
    assert judge(read(solved().lines, {"tools": tools}), COUNT).fault is FormatFault.UNKNOWN_TOOL


def test_steps_that_failed_are_masked_and_so_is_what_the_model_did_not_write() -> None:
    fitness = judge(read(solved().lines), COUNT, max_tokens=None)
    assert fitness.mask == (False, False, True, False, False, False, True, False)
    assert fitness.n_tokens == COUNT(to_messages(read(solved().lines))) > 100


def test_a_tokenizer_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"tokenizer.json"):
        token_counter("/nowhere/tokenizer.json")([])


# ---------------------------------------------------------------- cheating


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        ("git log --all -S parse", [GIT]), ("git reflog", [GIT]), ("cd x && git show 1a2b3c4d", [GIT]),
        ("git fetch origin", [GIT]), ("cat .git/packed-refs", [GIT]), ("git fsck --lost-found", [GIT]),
        ("git log --oneline -5; git show HEAD; git diff; git status; git log -- src", []),
        ("git stash; git checkout -- calc.py", []),
        ("pip install calc==2.0", [DOWNLOAD]), ("pip download calc", [DOWNLOAD]),
        ("python -m pip install -U calc", [DOWNLOAD]),
        ("curl -sL https://example.org/x.patch", [DOWNLOAD]), ("wget example.org//x", [DOWNLOAD]),
        ("pip install -e . --no-deps; pip list; pip show calc", []), ("pip install -q -e .[test] 2>&1 | tail", []),
        ("sed -i 's/1/2/' tests/test_calc.py", [TEST]), ("rm -rf tests/test_calc.py", [TEST]),
        ("git checkout HEAD -- tests/test_calc.py", [TEST]), ("echo x >> /testbed/tests/test_calc.py", [TEST]),
        ("python -m pytest tests/test_calc.py; cat tests/test_calc.py; grep -rn x tests", []),
        ("sed -n 1,5p tests/test_calc.py", []), ("rm /tmp/test_mine.py", []),
        ("echo 'addopts=-x' > pytest.ini", [RUNNER]), ("mv conftest.py old.py", [RUNNER]),
        ("cat > /tmp/a.py <<'EOF'\npip install x > conftest.py\nEOF\npython /tmp/a.py", [DOWNLOAD]),
    ],
)  # fmt: skip
def test_commands_are_flagged_with_their_event(command: str, kinds: list[FlagKind]) -> None:
    found = flags(read(Events().runs("ls").runs(command).lines))
    assert [flag.kind for flag in found] == kinds
    assert {(flag.event_number, flag.event_id) for flag in found} <= {(4, "event-4")}
    assert all(flag.excerpt in command for flag in found)


def test_editing_a_test_is_flagged_but_not_one_of_its_own() -> None:
    events = Events().edits("create", "/testbed/tests/test_new.py").edits("str_replace", "/testbed/tests/test_new.py")
    events.runs("rm tests/test_new.py").edits("str_replace", "/testbed/tests/test_calc.py")
    events.edits("insert", "/testbed/conftest.py").edits("view", "/testbed/tests/test_calc.py")
    assert [(flag.kind, flag.event_number) for flag in flags(read(events.lines))] == [(TEST, 8), (RUNNER, 10)]
