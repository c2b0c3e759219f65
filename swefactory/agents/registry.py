"""AgentSpec -> Agent. One property: OpenHands, which takes seconds to load, is loaded only for its own kind."""

import logging
import os
from typing import assert_never

from db.enums import AgentKind
from swefactory.agents.oracle import NopAgent, OracleAgent
from swefactory.config import Settings
from swefactory.errors import UsageError
from swefactory.protocols import Agent, AgentSpec

# Read by OpenHands and LiteLLM while they are imported. Without the first, LiteLLM fetches a price list from the
# internet in a thread that races with its own imports; the others keep banners, telemetry and log handlers off.
BEFORE_IMPORT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENHANDS_SUPPRESS_BANNER": "1",
    "LOG_AUTO_CONFIG": "false",
    "DO_NOT_TRACK": "1",
    "OH_TELEMETRY_CONSENT": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "ALLOW_SHORT_CONTEXT_WINDOWS": "true",  # small local models; OpenHands' own prompt, which needs 16k, is not used
}
# Would send traces or results elsewhere, or ask a question on the terminal (DEBUG_LLM).
_NEVER = ("AUTOMATION_CALLBACK_URL", "LMNR_PROJECT_API_KEY", "OTEL_EXPORTER_OTLP_ENDPOINT", "DEBUG_LLM")


def make_agent(spec: AgentSpec, settings: Settings) -> Agent:
    """The agent that `spec` names. Raises UsageError when the packages it needs are not installed."""
    match spec.kind:
        case AgentKind.ORACLE:
            return OracleAgent()
        case AgentKind.NOP:
            return NopAgent()
        case AgentKind.OPENHANDS:
            return _make_openhands(spec, settings)
        case _:
            assert_never(spec.kind)


def _make_openhands(spec: AgentSpec, settings: Settings) -> Agent:
    if not spec.model:
        raise UsageError(f"agent {spec.name!r} names no model; add --model, as LiteLLM or your server names it")
    os.environ.update(BEFORE_IMPORT)
    for name in _NEVER:
        os.environ.pop(name, None)
    try:
        from swefactory.agents.openhands import OpenHandsAgent
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("openhands", "litellm"):
            raise
        raise UsageError(
            f"agent {spec.name!r} needs the OpenHands packages ({error.name} is missing): "
            "pip install 'swefactory[agent]'"
        ) from error
    # Its errors come out as exit statuses and events; a second copy on stderr would tear the progress display.
    for name in ("openhands", "LiteLLM", "litellm"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return OpenHandsAgent(spec, settings)
