"""The OpenHands agent: its loop runs here, on the host; its tools act inside the sandbox only.

    solve ─► tools bound to the sandbox ─► conversation ─► arun() under a wall clock ─► events, messages, numbers

One property: every run ends, with an ExitStatus, within the limits of its AgentSpec. The key and the host's
environment never enter the sandbox, and the workspace OpenHands knows is an empty folder, so that agent settings
and hooks of the repository are never read by it.
"""

import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from openhands.sdk import LLM, Event, LocalConversation
from openhands.sdk import Agent as OpenHandsSdkAgent
from openhands.sdk.context.condenser import LLMSummarizingCondenser
from openhands.sdk.conversation.exceptions import ConversationRunError
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event import ActionEvent, LLMConvertibleEvent, MessageEvent
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.llm.exceptions import LLMContextWindowExceedError

from db.enums import ExitStatus
from swefactory.agents.agent_specs import CONDENSER
from swefactory.agents.openhands_llm import explain, is_model_error, make_llm
from swefactory.agents.openhands_steps import StepRecorder
from swefactory.agents.openhands_tools import BoundTools, bound
from swefactory.agents.prompts import prompt_text
from swefactory.config import Settings
from swefactory.errors import InfrastructureError
from swefactory.journals import Journal, NoJournal, Past
from swefactory.protocols import AgentResult, AgentSpec, Problem
from swefactory.sandbox_protocols import Sandbox

_log = logging.getLogger(__name__)

MAX_TURNS = 100
MAX_CONTINUES = 5
_Ending = tuple[ExitStatus, str]
_NO_JOURNAL = NoJournal()


class OpenHandsAgent:
    """Solves one problem at a time; holds no state between them."""

    def __init__(self, spec: AgentSpec, settings: Settings) -> None:
        self._spec = spec
        self._settings = settings

    def solve(self, problem: Problem, sandbox: Sandbox, journal: Journal = _NO_JOURNAL) -> AgentResult:
        """Runs to an ExitStatus. Raises InfrastructureError when the sandbox fails, UsageError on bad parameters."""
        llm = make_llm(self._spec, self._settings)
        with _private_home() as home, bound(sandbox, self._spec.command_timeout_s) as tools:
            recorder = StepRecorder(journal, tools, self._settings.redact, self._spec.max_tokens)
            conversation = self._conversation(llm, tools, recorder, home)
            try:
                ending = self._run(conversation, problem, tools, recorder, journal.past)
                if tools.failure is not None:
                    ending = _broken(sandbox, tools.failure)
                return self._result(conversation, llm, ending, recorder)
            finally:
                conversation.close()

    def _conversation(self, llm: LLM, tools: BoundTools, recorder: StepRecorder, home: Path) -> LocalConversation:
        workspace = home / "workspace"
        workspace.mkdir()
        agent = OpenHandsSdkAgent(
            llm=llm,
            tools=tools.specs(self._spec.tools),
            include_default_tools=["FinishTool", "ThinkTool"],
            system_prompt=self._prompt("system"),
            condenser=self._condenser(llm),
        )
        conversation = LocalConversation(
            agent=agent,
            workspace=str(workspace),
            visualizer=None,
            max_iteration_per_run=self._max_turns,
            max_budget_per_run=self._spec.max_cost_usd,
            callbacks=[recorder],
        )
        recorder.attend(conversation)
        return conversation

    def _prompt(self, name: str) -> str:
        return (self._spec.prompts.get(name) or prompt_text(f"{name}.txt")).strip()

    def _condenser(self, llm: LLM) -> LLMSummarizingCondenser | None:
        """None unless asked for: a condensed history is not what the model saw, and no trajectory to train on."""
        settings = self._spec.condenser
        return LLMSummarizingCondenser(llm=llm, **{**CONDENSER, **settings}) if settings else None

    @property
    def _max_turns(self) -> int:
        return max(1, min(self._spec.max_turns, MAX_TURNS))

    def _run(
        self, conversation: LocalConversation, problem: Problem, tools: BoundTools, recorder: StepRecorder, past: Past
    ) -> _Ending:
        started = time.monotonic()
        self._begin(conversation, problem, past)
        clock = _WallClock(conversation, tools, started + self._spec.timeout_s - _seconds(past))
        try:
            asyncio.run(self._converse(conversation, clock, recorder))
        except ConversationRunError as error:
            return self._failed(conversation, error.original_exception)
        if clock.rang:
            return ExitStatus.TIMEOUT, f"stopped after {self._spec.timeout_s:g} s"
        if recorder.order and not _has_finished(conversation):
            return recorder.order.exit_status, recorder.order.detail
        return _ending(conversation, recorder.n_turns, self._max_turns)

    def _begin(self, conversation: LocalConversation, problem: Problem, past: Past) -> None:
        """States the problem, or takes up what was said before; its money counts against the limit."""
        if not past.events:
            _send(conversation, self._prompt("task").replace("@STATEMENT@", problem.statement.strip()))
            return
        for body in past.events:
            conversation.state.append_event(Event.model_validate_json(body))
        if conversation.max_budget_per_run is not None:
            conversation.max_budget_per_run -= sum(step.cost_usd for step in past.steps)
        _send(conversation, prompt_text("resumed.txt"))

    async def _converse(self, conversation: LocalConversation, clock: "_WallClock", recorder: StepRecorder) -> None:
        """Lets the agent work; one that only talks is told to go on, a few times."""
        this_task = asyncio.current_task()
        assert this_task is not None
        with clock:
            for n_told in range(MAX_CONTINUES + 1):
                conversation.max_iteration_per_run = self._max_turns - recorder.n_turns
                try:
                    await asyncio.create_task(cast(Any, conversation).arun())
                except asyncio.CancelledError:
                    if not clock.rang:  # else our own interrupt, which older releases let through while they set up
                        raise
                if this_task.cancelling():  # Ctrl-C: arun() takes the cancellation for its own and swallows it
                    raise asyncio.CancelledError
                if clock.rang or recorder.order or not _only_talked(conversation):
                    return
                if n_told == MAX_CONTINUES or recorder.n_turns >= self._max_turns:
                    return
                _send(conversation, self._prompt("continue"))

    def _failed(self, conversation: LocalConversation, error: BaseException) -> _Ending:
        if isinstance(error, LLMContextWindowExceedError):
            return ExitStatus.TOKEN_LIMIT, "the conversation outgrew the model's context window"
        if is_model_error(error):
            return ExitStatus.MODEL_ERROR, explain(error, self._spec, self._settings)
        _log.error("OpenHands ended with an error of its own", exc_info=error)
        return ExitStatus.INFRASTRUCTURE_ERROR, f"OpenHands failed: {type(error).__name__}: {error}"[:2000]

    def _result(
        self, conversation: LocalConversation, llm: LLM, ending: _Ending, recorder: StepRecorder
    ) -> AgentResult:
        totals = recorder.close()
        redact = self._settings.redact
        return AgentResult(
            exit_status=ending[0],
            exit_detail=redact(ending[1]),
            n_turns=recorder.n_turns,
            n_truncations=recorder.n_truncations,
            **asdict(totals),
            events="".join(f"{body}\n" for body in recorder.events).encode("utf-8", "replace"),
            messages=redact(_messages(conversation, llm)).encode("utf-8", "replace"),
        )


class _WallClock:
    """Stops a conversation, a model call or command in progress included, when its time is over."""

    def __init__(self, conversation: LocalConversation, tools: BoundTools, until: float) -> None:
        self._conversation = conversation
        self._tools = tools
        self._until = until
        self._timer: asyncio.TimerHandle | None = None
        self.rang = False

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._until - time.monotonic()), self._ring)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tools.interrupt()  # a command still running would keep its thread, and with it the loop, from ending

    def _ring(self) -> None:
        """Rings until it is heard: an interrupt that comes while the conversation is being set up is lost."""
        self.rang = True
        self._tools.interrupt()
        self._conversation.interrupt()
        self._timer = asyncio.get_running_loop().call_later(1.0, self._ring)


def _broken(sandbox: Sandbox, failure: InfrastructureError) -> _Ending:
    """A sandbox fails its tools: by the agent's doing where it broke a limit, else the failure is raised."""
    if why := sandbox.violation():
        return ExitStatus.SANDBOX_VIOLATION, why
    raise failure


def _send(conversation: LocalConversation, text: str) -> None:
    cast(Any, conversation).send_message(text.strip())  # its decorator hides its type


def _seconds(past: Past) -> float:
    return sum(step.model_s + step.tools_s + step.overhead_s for step in past.steps)


def _last_agent_event(conversation: LocalConversation) -> ActionEvent | MessageEvent | None:
    events = [e for e in conversation.state.events if isinstance(e, ActionEvent | MessageEvent) and e.source == "agent"]
    return events[-1] if events else None


def _only_talked(conversation: LocalConversation) -> bool:
    """Whether the run ended with a message instead of a call of `finish`."""
    is_finished = conversation.state.execution_status is ConversationExecutionStatus.FINISHED
    return is_finished and isinstance(_last_agent_event(conversation), MessageEvent)


def _has_finished(conversation: LocalConversation) -> bool:
    is_finished = conversation.state.execution_status is ConversationExecutionStatus.FINISHED
    return is_finished and not _only_talked(conversation)


def _ending(conversation: LocalConversation, n_turns: int, max_turns: int) -> _Ending:
    """How a run that raised nothing ended."""
    match conversation.state.execution_status:
        case ConversationExecutionStatus.FINISHED if not _only_talked(conversation):
            return ExitStatus.SUBMITTED, ""
        case ConversationExecutionStatus.FINISHED if n_turns >= max_turns:
            return ExitStatus.TURN_LIMIT, f"stopped after {max_turns} turns, the last a message without a tool call"
        case ConversationExecutionStatus.FINISHED:
            return ExitStatus.STUCK, f"told {MAX_CONTINUES} times to go on, the agent still only talked"
        case ConversationExecutionStatus.STUCK:
            return ExitStatus.STUCK, "the agent repeated itself"
        case _:
            return _limit(conversation)


def _limit(conversation: LocalConversation) -> _Ending:
    errors = [event for event in conversation.state.events if isinstance(event, ConversationErrorEvent)]
    code, detail = (errors[-1].code, errors[-1].detail) if errors else ("", "the conversation was stopped")
    match code:
        case "MaxIterationsReached":
            return ExitStatus.TURN_LIMIT, detail
        case "MaxBudgetReached":
            return ExitStatus.COST_LIMIT, detail
        case _:
            return ExitStatus.INFRASTRUCTURE_ERROR, f"{code or 'OpenHands'}: {detail}"[:2000]


def _messages(conversation: LocalConversation, llm: LLM) -> str:
    """The conversation as the model saw it: messages and tools in OpenAI's chat format, as on the wire."""
    events = [event for event in conversation.state.events if isinstance(event, LLMConvertibleEvent)]
    messages = llm.format_messages_for_llm(LLMConvertibleEvent.events_to_messages(events))
    tools: list[Any] = [
        tool.to_openai_tool(add_security_risk_prediction=True) for tool in conversation.agent.tools_map.values()
    ]
    return json.dumps({"messages": messages, "tools": tools}, ensure_ascii=False)


@contextmanager
def _private_home() -> Iterator[Path]:
    """HOME is an empty folder meanwhile: OpenHands reads agents, skills and profiles from it."""
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory(prefix="swefactory-home-") as folder:
        os.environ["HOME"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = before
