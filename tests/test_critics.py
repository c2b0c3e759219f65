"""Critics over the wire: what they are told, what they may answer, and what becomes of each fault."""

import importlib.util
from pathlib import Path

import pytest

from swefactory.agents.critics import make_critic
from swefactory.config import Settings
from swefactory.errors import Transient, UsageError
from swefactory.protocols import CriticAnswer, CriticQuestion
from tests.scripted_model import Reply, ScriptedModel, fault, say


def require_litellm() -> None:
    """Without importing it: it must find the settings that the product makes first, else it fetches a price list."""
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("LiteLLM is absent: pip install 'swefactory[agent]'")


KEY = "sk-planted-critic-0123456789"
QUESTION = CriticQuestion("o__r-1", "add subtracts", "diff --git a/calc.py b/calc.py\n+    return a + b\n")


def ask(name: str, replies: list[Reply], home: Path) -> tuple[CriticAnswer, ScriptedModel]:
    with ScriptedModel(replies) as model:
        reward_url = model.url.removesuffix("/v1") + "/pooling"
        settings = Settings(
            home=home, judge_url=model.url, judge_api_key=KEY, reward_url=reward_url, reward_api_key=KEY,
        )  # fmt: skip
        return make_critic(name, settings).score(QUESTION), model


def test_a_judge_is_told_issue_and_patch_and_its_percentage_is_a_share(tmp_path: Path) -> None:
    require_litellm()
    said = 'Let me see {x}. {"score": 5}\n```json\n{"reason": "it adds, ' + KEY + '", "score": 80}\n```'
    answer, model = ask("judge:tiny", [say(said)], tmp_path)
    assert (answer.score, answer.detail["reason"]) == (0.8, "it adds, [redacted]")
    (request,), (headers,) = model.requests, model.headers
    assert (request["model"], request["temperature"], headers["Authorization"]) == ("tiny", 0, f"Bearer {KEY}")
    (message,) = request["messages"]
    assert "add subtracts" in message["content"]
    assert "return a + b" in message["content"]
    assert KEY not in message["content"]


@pytest.mark.parametrize(("said", "n_asked"), [("fine, I think", 2), ('{"score": 180}', 2), ("[1", 2)])
def test_a_judge_that_gives_no_percentage_is_asked_once_more_and_gives_none(
    tmp_path: Path, said: str, n_asked: int
) -> None:
    require_litellm()
    answer, model = ask("judge:tiny", [say(said)], tmp_path)
    assert (answer.score, answer.detail["unreadable"], len(model.requests)) == (None, said, n_asked)


@pytest.mark.parametrize(
    ("body", "score"),
    [
        ('{"score": -1.5}', -1.5),
        ('{"object": "list", "data": [{"index": 0, "data": [[0.1], [0.25]]}]}', 0.25),
        ('{"data": [{"data": [0.5]}]}', 0.5),
        ('{"data": []}', None),
        ('{"score": "high"}', None),
        ("NaN", None),
        ("<html>", None),
    ],
)
def test_a_reward_model_answers_a_conversation_with_a_number(tmp_path: Path, body: str, score: float | None) -> None:
    answer, model = ask("reward:critic", [fault("raw", body=body)], tmp_path)
    assert answer.score == score
    assert [message["role"] for message in model.requests[0]["messages"]] == ["user", "assistant"]
    assert model.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("name", ["judge:tiny", "reward:critic"])
def test_each_fault_of_a_critic_waits_is_mended_or_concerns_this_question_alone(tmp_path: Path, name: str) -> None:
    if name.startswith("judge"):
        require_litellm()
    with pytest.raises(Transient, match=rf"{name} does not answer now \(429"):
        ask(name, [fault("status", status=429)], tmp_path)
    with pytest.raises(UsageError, match="_API_KEY right") as refused:
        ask(name, [fault("status", status=401, message=f"no such key {KEY}")], tmp_path)
    assert KEY not in str(refused.value)
    answer, _ = ask(name, [fault("status", status=400, message="maximum context length is 10 tokens")], tmp_path)
    assert answer.score is None
    assert "maximum context length" in str(answer.detail["unreadable"])


def test_a_critic_that_cannot_be_asked_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="SWEFACTORY_REWARD_URL"):
        make_critic("reward:critic", Settings(home=tmp_path))
    for name in ("judge:", "referee:x", "pass_to_pass"):
        with pytest.raises(UsageError, match="write judge:MODEL"):
            make_critic(name, Settings(home=tmp_path))
    with pytest.raises(Transient, match="cannot be reached"):
        make_critic("reward:critic", Settings(home=tmp_path, reward_url="http://127.0.0.1:9/x")).score(QUESTION)
