"""Critics that look at a problem and a patch: a judge through LiteLLM, and a reward model's HTTP endpoint.

    judge:MODEL     asks a model for a percentage, by prompts/judge.txt, at temperature 0
    reward:MODEL    posts issue and patch as a conversation to SWEFACTORY_REWARD_URL, takes the number it answers

One property: they are told the CriticQuestion and nothing else, and their keys are in no answer, error or name.
"""

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

from db.enums import CriticKind
from swefactory.agents.prompts import prompt_text
from swefactory.agents.registry import BEFORE_IMPORT
from swefactory.config import Settings
from swefactory.errors import Transient, UsageError
from swefactory.protocols import Critic, CriticAnswer, CriticQuestion

_TIMEOUT_S = 300
_PATIENCE_S = 60.0
_MOST_CHARACTERS = 60_000  # of a patch; more is cut in its middle
_ANSWER_TOKENS = 2_000
_MASKED = 300  # characters of an answer that is kept
_THIS_QUESTION = (400, 413, 422)
_LATER = (408, 409, 425, 429, 500, 502, 503, 504)


def check_name(name: str) -> str:
    """`kind:MODEL` as it is. Raises UsageError."""
    kind, _, model = name.partition(":")
    if kind not in (CriticKind.JUDGE, CriticKind.REWARD) or not model.strip():
        raise UsageError(f"no critic {name!r}: write judge:MODEL, as LiteLLM or your server names it, or reward:MODEL")
    return name


def make_critic(name: str, settings: Settings) -> Critic:
    """The critic of this name. Raises UsageError when it cannot be asked here."""
    kind, _, model = check_name(name).partition(":")
    if kind == CriticKind.JUDGE:
        return Judge(model, settings)
    if not settings.reward_url:
        raise UsageError(f"{name} has no address; set SWEFACTORY_REWARD_URL to the reward model's endpoint")
    return RewardModel(model, settings)


class Judge:
    """A model that is asked for its opinion. With SWEFACTORY_JUDGE_URL it is served there, else LiteLLM knows where."""

    def __init__(self, model: str, settings: Settings) -> None:
        self._name, self._settings = f"judge:{model}", settings
        self._model = f"hosted_vllm/{model.removeprefix('hosted_vllm/')}" if settings.judge_url else model

    def score(self, question: CriticQuestion) -> CriticAnswer:
        """See Critic. The score is the share from 0 to 1; an answer that cannot be read is asked for once more."""
        prompt = prompt_text("judge.txt")
        facts = {"prompt": "sha256:" + hashlib.sha256(prompt.encode()).hexdigest()}
        text = prompt.replace("@STATEMENT@", question.statement.strip())
        text = text.replace("@PATCH@", _cut(question.model_patch.strip()))
        cost, said = 0.0, ""
        for _ in range(2):
            said, price = self._ask(text)
            cost += price
            if (found := _opinion(said)) is not None:
                share, reason = found
                return CriticAnswer(share, {**facts, "reason": self._settings.redact(reason)[:_MASKED]}, cost)
        return CriticAnswer(None, {**facts, "unreadable": self._settings.redact(said)[:_MASKED]}, cost)

    def _ask(self, text: str) -> tuple[str, float]:
        litellm = _litellm()
        try:
            response = litellm.completion(
                model=self._model,
                messages=[{"role": "user", "content": text}],
                api_base=self._settings.judge_url or None,
                api_key=self._settings.judge_api_key.get_secret_value() or None,
                temperature=0,
                max_tokens=_ANSWER_TOKENS,
                timeout=_TIMEOUT_S,
                num_retries=0,
            )
        except Exception as error:
            status = getattr(error, "status_code", None)
            if not isinstance(status, int):  # none of LiteLLM's: a bug
                raise
            said = self._settings.redact(" ".join(str(error).split()))[:_MASKED]
            mend = "SWEFACTORY_JUDGE_URL and SWEFACTORY_JUDGE_API_KEY"
            return _refused(self._name, status, said, mend, error), 0.0
        return str(response.choices[0].message.content or ""), _price(response)


class RewardModel:
    """An endpoint that answers a conversation with a number: {"score": x}, or vLLM's pooling answer, whose last number
    it is."""

    def __init__(self, model: str, settings: Settings) -> None:
        self._name, self._model, self._settings = f"reward:{model}", model, settings

    def score(self, question: CriticQuestion) -> CriticAnswer:
        """See Critic."""
        key = self._settings.reward_api_key.get_secret_value()
        body = {
            "model": self._model,
            "messages": [
                {"role": "user", "content": question.statement.strip()},
                {"role": "assistant", "content": _cut(question.model_patch.strip())},
            ],
        }
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        where = urlsplit(self._settings.reward_url).hostname or ""
        mend = "SWEFACTORY_REWARD_URL and SWEFACTORY_REWARD_API_KEY"
        try:
            response = requests.post(self._settings.reward_url, json=body, headers=headers, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            raise Transient(
                f"{self._name} at {where} cannot be reached: {type(error).__name__}", _PATIENCE_S
            ) from error
        said = self._settings.redact(response.text)[:_MASKED]
        if response.status_code != requests.codes.ok:
            return CriticAnswer(None, {"unreadable": _refused(self._name, response.status_code, said, mend)})
        try:
            found = _number(response.json())
        except ValueError:
            found = None
        return CriticAnswer(found, {} if found is not None else {"unreadable": said})


def _refused(name: str, status: int, said: str, mend: str, error: Exception | None = None) -> str:
    """What it said where this question alone is at fault, as one that is too long. Raises Transient, UsageError."""
    if status in _LATER:
        raise Transient(f"{name} does not answer now ({status}: {said})", _PATIENCE_S) from error
    if status not in _THIS_QUESTION:
        raise UsageError(f"{name} refuses to answer ({status}: {said}); set {mend} right") from error
    return f"{status}: {said}"


def _litellm() -> Any:  # noqa: ANN401 - an untyped library
    os.environ.update(BEFORE_IMPORT)
    try:
        import litellm
    except ModuleNotFoundError as error:
        raise UsageError("a judge needs LiteLLM: pip install 'swefactory[agent]'") from error
    for name in ("LiteLLM", "litellm"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


def _price(response: Any) -> float:  # noqa: ANN401 - an untyped library's
    """What LiteLLM reckoned with the answer; 0 of a model without a price in its list."""
    return float(response._hidden_params.get("response_cost") or 0.0)


def _opinion(said: str) -> tuple[float, str] | None:
    """The last JSON object with a score from 0 to 100, as a share, and its reason."""
    found = None
    for match in re.finditer(r"\{[^{}]*\}", said):
        try:
            value = json.loads(match[0])
        except ValueError:
            continue
        number = _finite(value.get("score"))
        if number is not None and 0 <= number <= 100:
            found = number / 100, str(value.get("reason", ""))
    return found


def _number(answer: object) -> float | None:
    if isinstance(answer, Mapping):
        if "score" in answer:
            return _finite(answer["score"])
        return next(reversed(list(_numbers(answer.get("data")))), None)
    return None


def _numbers(value: object) -> Iterator[float]:
    """Numbers in lists, and under `data` of objects in them."""
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, Mapping):
        yield from _numbers(value.get("data"))
    elif (number := _finite(value)) is not None:
        yield number


def _finite(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]


def _cut(patch: str) -> str:
    if len(patch) <= _MOST_CHARACTERS:
        return patch
    half = _MOST_CHARACTERS // 2
    return f"{patch[:half]}\n[… {len(patch) - 2 * half} characters are left out here …]\n{patch[-half:]}"
