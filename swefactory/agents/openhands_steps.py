"""Writes a conversation into a journal as it happens, and ends it when the journal or a token limit says so.

    event ─► journal.event ─► answers of the model since the last event become steps ─► journal.step ─► go on, or pause

One property: nothing the model answered is missing from the journal once the next event has come, and a step's
seconds add up to the time that passed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from openhands.sdk import Event, LocalConversation
from openhands.sdk.event import ActionEvent, AgentErrorEvent, ObservationEvent
from openhands.sdk.event.condenser import Condensation

from db.enums import ExitStatus
from swefactory.agents.openhands_tools import BoundTools
from swefactory.journals import Journal, Step, StopOrder

_STILL_RUNNING = -1  # the exit code of a command that was left running


@dataclass(frozen=True)
class Totals:
    """Sums over all steps, those of an earlier attempt included."""

    n_prompt_tokens: int
    n_completion_tokens: int
    n_cached_tokens: int
    n_reasoning_tokens: int
    cost_usd: float
    model_s: float
    tools_s: float
    overhead_s: float


class StepRecorder:
    """The callback of one conversation. `order` says why it was told to stop."""

    def __init__(
        self, journal: Journal, tools: BoundTools, redact: Callable[[str], str], max_tokens: int | None
    ) -> None:
        self._journal, self._tools, self._redact, self._max_tokens = journal, tools, redact, max_tokens
        self._conversation: LocalConversation | None = None
        self._steps = list(journal.past.steps)
        self._n_past_steps = len(self._steps)
        self.events = list(journal.past.events)  # as the journal has them: the conversation's own order may differ
        self._billed_usd = 0.0
        self._since = self._ends_at = time.monotonic()  # when the step before ended, and this one so far
        self._tools_s_before = 0.0
        self._n_answered = 0  # calls of the present step
        self.n_truncations = 0
        self.order: StopOrder | None = None

    def attend(self, conversation: LocalConversation) -> None:
        """Whose events these are: a conversation takes its callbacks before it exists."""
        self._conversation = conversation
        self._since = time.monotonic()

    def __call__(self, event: Event) -> None:
        number, body = len(self.events), self._redact(event.model_dump_json())
        self.events.append(body)
        self._journal.event(number, body)
        self.n_truncations += isinstance(event, Condensation)
        self._take_new_answers()
        match event:
            case ActionEvent() if self._has_own_steps:
                self._change(tools=(*self._steps[-1].tools, event.tool_name))
            case ObservationEvent() | AgentErrorEvent() if self._has_own_steps:
                failed = isinstance(event, AgentErrorEvent) or event.observation.is_error
                self._change(n_errors=self._steps[-1].n_errors + failed)
                self._n_answered += 1
                self._rest(is_running=getattr(getattr(event, "observation", None), "exit_code", None) == _STILL_RUNNING)

    def _rest(self, *, is_running: bool) -> None:
        """When all calls of an answer are answered, nothing runs. A finished conversation needs no checkpoint."""
        step = self._steps[-1]
        if self._n_answered == len(step.tools) and not is_running and "finish" not in step.tools:
            self._journal.rest(step.number, len(self.events))

    @property
    def n_turns(self) -> int:
        """Answers of the model so far, those of an earlier attempt included."""
        return len(self._steps) + len(self._unseen())

    @property
    def _has_own_steps(self) -> bool:
        return len(self._steps) > self._n_past_steps

    def close(self) -> Totals:
        """Takes in answers that no event followed, and adds up."""
        self._take_new_answers()
        names = Totals.__dataclass_fields__
        return Totals(**{name: sum(getattr(step, name) for step in self._steps) for name in names})

    def _unseen(self) -> list[str]:
        """Response ids of answers that are no steps yet."""
        if self._conversation is None:
            return []
        latencies = self._conversation.conversation_stats.get_combined_metrics().response_latencies
        return [latency.response_id for latency in latencies[len(self._steps) - self._n_past_steps :]]

    def _take_new_answers(self) -> None:
        for _ in self._unseen():
            self._take_one()
            self._tell()

    def _take_one(self) -> None:
        assert self._conversation is not None
        metrics = self._conversation.conversation_stats.get_combined_metrics()
        latency = metrics.response_latencies[len(self._steps) - self._n_past_steps]
        usage = next((u for u in reversed(metrics.token_usages) if u.response_id == latency.response_id), None)
        cost = metrics.accumulated_cost - self._billed_usd  # costs of zero have no entry of their own
        self._billed_usd = metrics.accumulated_cost
        now = time.monotonic()
        if self._has_own_steps:
            self._since = self._ends_at
        self._ends_at, self._tools_s_before, self._n_answered = now, self._tools.seconds, 0
        self._steps.append(
            Step(
                number=len(self._steps) + 1,
                response_id=latency.response_id,
                n_events=len(self.events),
                n_prompt_tokens=usage.prompt_tokens if usage else 0,
                n_completion_tokens=usage.completion_tokens if usage else 0,
                n_cached_tokens=usage.cache_read_tokens if usage else 0,
                n_reasoning_tokens=usage.reasoning_tokens if usage else 0,
                cost_usd=cost,
                model_s=latency.latency,
                overhead_s=max(0.0, now - self._since - latency.latency),
            )
        )

    def _change(self, **facts: object) -> None:
        """More of the present step is known, the time it has taken by now above all."""
        step = self._steps[-1]
        self._ends_at = time.monotonic()
        tools_s = self._tools.seconds - self._tools_s_before
        overhead_s = max(0.0, self._ends_at - self._since - step.model_s - tools_s)
        self._steps[-1] = replace(step, n_events=len(self.events), tools_s=tools_s, overhead_s=overhead_s, **facts)  # type: ignore[arg-type]
        self._tell()

    def _tell(self) -> None:
        order = self._journal.step(self._steps[-1]) or self._over_tokens()
        if order and not self.order:
            self.order = order
            assert self._conversation is not None
            self._conversation.pause()  # takes effect before the next call of the model

    def _over_tokens(self) -> StopOrder | None:
        used = sum(step.n_prompt_tokens + step.n_completion_tokens for step in self._steps)
        if self._max_tokens is None or used < self._max_tokens:
            return None
        return StopOrder(ExitStatus.TOKEN_LIMIT, f"{used} tokens were used, of {self._max_tokens}")
