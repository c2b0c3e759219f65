"""The model as OpenHands talks to it, through LiteLLM, and the sentence that says why it did not answer.

With `settings.model_url` the model is served by an OpenAI-compatible server and named as that server names it, with
or without LiteLLM's `hosted_vllm/` in front. Without, it is named as LiteLLM names it, provider first.
One property: the sampling parameters of the AgentSpec reach the wire, and no message holds the key.
"""

from typing import Any
from urllib.parse import urlsplit

import litellm
from openhands.sdk import LLM
from openhands.sdk.llm.exceptions import (
    LLMAuthenticationError,
    LLMError,
    LLMRateLimitError,
    LLMServiceUnavailableError,
    LLMTimeoutError,
)
from pydantic import SecretStr

from swefactory.agents.agent_specs import SAMPLING, check_parameters
from swefactory.config import Settings
from swefactory.errors import UsageError
from swefactory.protocols import AgentSpec

_PREFIX = "hosted_vllm/"
_CALL_TIMEOUT_S = 600
_LITELLM_GUESS = 400  # LiteLLM's own name for what it cannot classify; the cause below it knows the true status


def make_llm(spec: AgentSpec, settings: Settings) -> LLM:
    """The LLM of `spec`. Raises UsageError on an unknown parameter or a cost limit that could not be kept."""
    check_parameters(spec)
    model = _model_name(spec.model, settings.model_url)
    facts: dict[str, Any] = {
        "model": model,
        "base_url": settings.model_url or None,
        "api_key": SecretStr(key) if (key := settings.model_api_key.get_secret_value()) else None,
        "usage_id": "agent",
        "timeout": max(1, int(min(_CALL_TIMEOUT_S, spec.timeout_s))),
        "num_retries": 4,
        "retry_multiplier": 2.0,
        "retry_min_wait": 1,
        "retry_max_wait": 30,
        "capability_overrides": _capabilities(spec, settings),
        "caching_prompt": not settings.model_url,
    }
    if settings.model_url:
        facts |= {"api_mode": "chat", "force_string_serializer": True}
    facts |= _prices(spec, model) | dict(spec.parameters)
    if "capability_overrides" not in LLM.model_fields:
        facts = _around(facts, is_served_here=bool(settings.model_url))
    return LLM(**facts)


def _around(facts: dict[str, Any], *, is_served_here: bool) -> dict[str, Any]:
    """For OpenHands before it knew of such overrides: what it would drop goes in the body it passes on as it is."""
    facts = {name: value for name, value in facts.items() if name != "capability_overrides"}
    if is_served_here:
        dropped = {name: facts[name] for name in ("temperature", "top_p") if name in facts}
        facts["litellm_extra_body"] = {**dropped, **facts.get("litellm_extra_body", {})}
        facts.setdefault("reasoning_effort", None)
    return facts


def _model_name(model: str, url: str) -> str:
    """`hosted_vllm/` goes over LiteLLM's own HTTP client, which costs half of what `openai/` does on long histories."""
    return _PREFIX + model.removeprefix(_PREFIX) if url else model


def _capabilities(spec: AgentSpec, settings: Settings) -> dict[str, bool | str]:
    """OpenHands takes every model behind a custom URL for a reasoning model and then drops temperature and top_p."""
    wants_sampling = bool(SAMPLING & spec.parameters.keys())
    wants_reasoning = "reasoning_effort" in spec.parameters
    if settings.model_url:
        return {
            "supports_reasoning_effort": wants_reasoning,
            "supports_sampling_params": True,
            "supports_prompt_cache_key": False,
        }
    if wants_sampling and not wants_reasoning:
        return {"supports_reasoning_effort": False, "supports_sampling_params": True}
    return {}


def _prices(spec: AgentSpec, model: str) -> dict[str, float]:
    """Both prices, zero for a model LiteLLM has none for: without them each call warns."""
    names = ("input_cost_per_token", "output_cost_per_token")
    if all(name in spec.parameters for name in names) or model in litellm.model_cost:
        return {}
    if spec.max_cost_usd is not None:
        raise UsageError(
            f"agent {spec.name!r}: the price of {spec.model} is not known, so the limit of {spec.max_cost_usd} dollars "
            f"could not be kept; give both {' and '.join(names)} or leave out the cost limit"
        )
    return dict.fromkeys(names, 0.0)


def is_model_error(error: BaseException) -> bool:
    """Whether the model's side failed: LiteLLM's and OpenHands' errors for it, not a bug in between."""
    return isinstance(error, LLMError | litellm.exceptions.APIError) or type(error).__module__.startswith(
        ("litellm.", "openai", "httpx")
    )


def explain(error: BaseException, spec: AgentSpec, settings: Settings) -> str:
    """One sentence: what the model's side did, which it was, what to do."""
    who = f"the model server at {_public(settings.model_url)}" if settings.model_url else f"the model {spec.model}"
    said = " ".join(str(error).split())[:300]
    match error:
        case _ if isinstance(error, LLMAuthenticationError) or _status(error) in (401, 403):
            return f"{who} refused the API key; set SWEFACTORY_MODEL_API_KEY to a valid one"
        case LLMRateLimitError():
            return f"{who} still limits the rate after several tries; run fewer rollouts at once ({said})"
        case LLMTimeoutError():
            return f"{who} did not answer in time ({said})"
        case LLMServiceUnavailableError():
            return f"{who} cannot be reached or is unavailable; is it running, is SWEFACTORY_MODEL_URL right? ({said})"
        case _:
            return f"{who} answered with an error for {spec.model}: {type(error).__name__}: {said}"


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, where one of its causes knows it."""
    while error is not None:
        if isinstance(code := getattr(error, "status_code", None), int) and code != _LITELLM_GUESS:
            return code
        error = error.__cause__ or error.__context__
    return None


def _public(url: str) -> str:
    """The URL without user, password and query: they may hold a key."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
