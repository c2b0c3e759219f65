"""What a model server can do wrong, over the wire, and the exit status each ends in with the real OpenHands."""

from collections.abc import Sequence
from typing import Any

import pytest

from db.enums import ExitStatus
from tests.scripted_model import Reply, call, fault, finish, say
from tests.test_agent_openhands import Scene, is_old_core, observations, pytestmark, scene, spec

__all__ = ["pytestmark", "scene"]

LIMITED = fault("status", status=429, headers={"Retry-After": "1"}, message="Rate limit reached")
BROKEN = fault("status", status=500, message="the server had an error")
OVERFLOW = fault(
    "status", status=400, code="context_length_exceeded",
    message="This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.",
)  # fmt: skip
LOOK = call("terminal", command="echo look")
REFUSING = [fault("refusal")]


@pytest.mark.parametrize(
    ("replies", "ends", "says"),
    [
        ([LIMITED, LOOK, finish()], ExitStatus.SUBMITTED, ""),
        ([LIMITED], ExitStatus.MODEL_ERROR, "limits the rate"),
        ([BROKEN, LOOK, finish()], ExitStatus.SUBMITTED, ""),
        ([LOOK, BROKEN], ExitStatus.MODEL_ERROR, "the model server at http://127.0.0.1"),
        ([fault("truncated")], ExitStatus.MODEL_ERROR, "the model server at"),
        ([fault("raw", body="<html>gateway</html>")], ExitStatus.MODEL_ERROR, "the model server at"),
        ([fault("raw", body='{"object": "list", "data": []}')], ExitStatus.MODEL_ERROR, "the model server at"),
        ([fault("arguments", text='{"command": "ls'), LOOK, finish()], ExitStatus.SUBMITTED, ""),
        ([fault("arguments", text="not JSON")], ExitStatus.STUCK, "repeated itself"),
        (REFUSING, ExitStatus.STUCK, "repeated itself"),
        ([LOOK], ExitStatus.STUCK, "repeated itself"),
        ([LOOK, OVERFLOW], ExitStatus.TOKEN_LIMIT, "context window"),
        ([fault("slow", every_s=0.1)], ExitStatus.TIMEOUT, "stopped after 4 s"),
    ],
    ids=[
        "429 once", "429 always", "500 once", "500 always", "truncated", "no JSON", "wrong JSON", "malformed call once",
        "malformed call always", "refusal", "endless loop", "context overflow", "slow tokens",
    ],
)  # fmt: skip
def test_each_fault_of_a_model_ends_in_the_right_status(
    scene: Scene, replies: Sequence[Reply], ends: ExitStatus, says: str
) -> None:
    if replies == REFUSING and is_old_core():
        ends, says = ExitStatus.TURN_LIMIT, "maximum iterations"
    timeout_s = 4 if "slow" in str(replies) else 60
    result = scene.play(replies, spec(timeout_s=timeout_s, max_turns=20, parameters={"num_retries": 2}))
    assert (result.exit_status, says in result.exit_detail) == (ends, True), result.exit_detail


def test_tokens_are_limited_over_all_turns(scene: Scene) -> None:
    replies = [call("terminal", command=f"echo {n}") for n in range(20)]
    result = scene.play(replies, spec(max_tokens=300))
    assert result.exit_status is ExitStatus.TOKEN_LIMIT
    assert result.exit_detail == "330 tokens were used, of 300"
    assert result.n_turns == 3 == len(scene.requests)
    assert observations(result)[-1].startswith("2\n"), "what the last answer asked for was done"


def test_prompts_tools_and_condenser_of_the_configuration_are_used(scene: Scene) -> None:
    facts: dict[str, Any] = {
        "prompts": {"system": "Be terse.", "task": "Mend: @STATEMENT@", "continue": "Go on."},
        "tools": ("terminal",),
        "condenser": {"max_size": 10, "keep_first": 2},
    }
    result = scene.play(
        [say("hm"), *(call("terminal", command=f"echo {n}") for n in range(9)), finish()], spec(**facts)
    )
    first, second = scene.requests[:2]
    assert [message["content"] for message in first["messages"]] == ["Be terse.", "Mend: x must be 2"]
    assert second["messages"][-1]["content"] == "Go on."
    assert [tool["function"]["name"] for tool in first["tools"]] == ["terminal", "finish", "think"]
    assert result.n_truncations > 0
