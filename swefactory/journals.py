"""Where a rollout is written down while it happens. One property: what was told is stored when the call returns.

An attempt that breaks off leaves its events, its steps and its last checkpoint; the next one goes on from them.
"""

from dataclasses import dataclass
from typing import Protocol

from db.enums import ExitStatus


@dataclass(frozen=True)
class Step:
    """One answer of the model and what its tools did. Seconds of model and tools are measured, overhead is the rest."""

    number: int  # 1 is the first
    response_id: str
    n_events: int  # of the trajectory, up to its end
    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0
    cost_usd: float = 0.0
    model_s: float = 0.0
    tools_s: float = 0.0
    overhead_s: float = 0.0
    tools: tuple[str, ...] = ()
    n_errors: int = 0


@dataclass(frozen=True)
class StopOrder:
    """That a rollout must end now, and how it is said to have ended."""

    exit_status: ExitStatus
    detail: str


@dataclass(frozen=True)
class Past:
    """What an earlier attempt did, up to its checkpoint: its events as JSON and its steps."""

    events: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()


class Journal(Protocol):
    """Where a rollout is written down while it happens."""

    @property
    def past(self) -> Past:
        """To go on from; empty: begin anew."""
        ...

    def event(self, number: int, body: str) -> None:
        """An event of the trajectory, from 0, as JSON without secrets; stored when this returns."""
        ...

    def step(self, step: Step) -> StopOrder | None:
        """A step as far as it has come; told again when more of it is known."""
        ...

    def rest(self, n_steps: int, n_events: int) -> None:
        """After so many steps and events nothing runs in the sandbox: it can be looked at."""
        ...


class NoJournal:
    """Forgets everything and never stops anybody."""

    past = Past()

    def event(self, number: int, body: str) -> None: ...

    def step(self, step: Step) -> StopOrder | None:
        return None

    def rest(self, n_steps: int, n_events: int) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """A sandbox as it stood between two steps: the tree's diff, and a gzipped tar of what lies outside the tree."""

    n_steps: int
    n_events: int
    patch: str
    files: bytes = b""


class RolloutJournal(Journal, Protocol):
    """The journal of one attempt at a rollout, as the stage has it."""

    is_kept: bool  # whether checkpoints are
    checkpoint: Checkpoint | None  # what an attempt that broke off left

    def resume(self, detail: str) -> None:
        """The checkpoint was restored: `past` is what came before it, and counts as this attempt's."""
        ...

    def restart(self, detail: str) -> None:
        """It was not, or there is none; `detail` says why."""
        ...

    def keep(self, checkpoint: Checkpoint) -> None: ...

    def order(self) -> StopOrder | None:
        """Why this rollout must not go on, if so."""
        ...


class ForgetfulJournal(NoJournal):
    """For those who store nothing."""

    is_kept = False
    checkpoint: Checkpoint | None = None

    def resume(self, detail: str) -> None: ...

    def restart(self, detail: str) -> None: ...

    def keep(self, checkpoint: Checkpoint) -> None: ...

    def order(self) -> StopOrder | None:
        return None
