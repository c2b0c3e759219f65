"""What an AgentSpec may say, checked before it is stored. One property: a spec that passes holds no key.

Light: neither OpenHands nor LiteLLM is loaded for it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace

from db.enums import AgentKind
from swefactory.agents.prompts import PROMPTS, prompt_text
from swefactory.errors import UsageError
from swefactory.protocols import AgentSpec

SAMPLING = frozenset(("temperature", "top_p", "top_k"))
PARAMETERS = SAMPLING | {
    "seed", "max_output_tokens", "max_input_tokens", "reasoning_effort", "num_retries", "timeout", "drop_params",
    "input_cost_per_token", "output_cost_per_token", "native_tool_calling", "extra_headers", "litellm_extra_body",
}  # fmt: skip
TOOLS = ("terminal", "file_editor")
CONDENSER = {"max_size": 240, "keep_first": 2}  # events; LLMSummarizingCondenser's own defaults
_STATEMENT = "@STATEMENT@"
# Names under which HTTP and LiteLLM carry keys, at any depth of the parameters.
_KEY_NAME = re.compile(r"authorization|api[-_]?key|token$|secret|password|cookie", re.IGNORECASE)


def check_parameters(spec: AgentSpec) -> None:
    """Raises UsageError on a model parameter that nobody knows."""
    if unknown := sorted(set(spec.parameters) - PARAMETERS):
        raise UsageError(
            f"agent {spec.name!r}: no model parameter {unknown[0]!r}; known are {', '.join(sorted(PARAMETERS))}. "
            "What only the server knows goes into litellm_extra_body"
        )


def completed(spec: AgentSpec, redact: Callable[[str], str] = str) -> AgentSpec:
    """The spec as it is stored: checked, with the texts of our own prompts where it names none, so that its digest
    says what is sent. `redact` takes known secrets out of a text. Raises UsageError."""
    if spec.kind is not AgentKind.OPENHANDS:
        return spec
    if not spec.model:
        raise UsageError(f"agent {spec.name!r} names no model; add --model, named as LiteLLM or your server names it")
    check_parameters(spec)
    _check_choices(spec)
    _check_keys(spec, redact)
    prompts = {name: spec.prompts.get(name) or prompt_text(f"{name}.txt") for name in PROMPTS}
    if _STATEMENT not in prompts["task"]:
        raise UsageError(
            f"agent {spec.name!r}: the task prompt has no {_STATEMENT}, so the agent would not see the issue"
        )
    return replace(spec, prompts=prompts)


def _check_choices(spec: AgentSpec) -> None:
    for what, given, known in (
        ("tool", spec.tools, TOOLS),
        ("prompt", spec.prompts, PROMPTS),
        ("condenser setting", spec.condenser, tuple(CONDENSER)),
    ):
        if strange := sorted(set(given) - set(known)):
            raise UsageError(f"agent {spec.name!r}: no {what} {strange[0]!r}; there are {', '.join(known)}")
    if spec.condenser and 2 * (spec.condenser["keep_first"] + 1) >= spec.condenser["max_size"]:
        raise UsageError(f"agent {spec.name!r}: keep_first must be less than half of max_size, less one")


def _check_keys(spec: AgentSpec, redact: Callable[[str], str]) -> None:
    """A catalog is read by many: keys come from the environment or a secrets file when the agent runs."""
    facts = asdict(spec) | {"kind": spec.kind.value}
    text = json.dumps(facts)
    named = _key_names(facts["parameters"])
    if redact(text) == text and not named:
        return
    what = f"the parameter {named[0]!r}" if named else "one of your secrets"
    raise UsageError(
        f"agent {spec.name!r} holds {what}, which would be stored; set SWEFACTORY_MODEL_API_KEY, or a file of that "
        "name in SWEFACTORY_SECRETS_DIR, instead"
    )


def _key_names(value: object) -> list[str]:
    """Names below `value` that look like those of keys."""
    if isinstance(value, dict):
        own = [name for name in value if _KEY_NAME.search(name) and name not in PARAMETERS]
        return own + [name for each in value.values() for name in _key_names(each)]
    if isinstance(value, list):
        return [name for each in value for name in _key_names(each)]
    return []
