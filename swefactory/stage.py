"""What a stage is, and the services its work is handed.

A stage is three functions. `load` reads the subject in a short transaction; `work` does what takes long, with no
session in reach, so no transaction can be open meanwhile; `save` writes its own rows in the transaction that also
finishes the job and inserts the jobs that follow. Forward only: a stage never calls or waits for a later one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlmodel import Session

from db.enums import SourceKind, StageName
from swefactory.checkouts import Checkouts
from swefactory.config import Settings
from swefactory.errors import Rejected, UsageError
from swefactory.journals import ForgetfulJournal, RolloutJournal
from swefactory.protocols import Agent, AgentSpec, ArtifactStore, Critic, PullRequestSource
from swefactory.sandbox_protocols import SandboxBackend


def no_critic(name: str) -> Critic:
    """For those who ask none."""
    raise UsageError(f"no critic can be asked here, {name} was")


@dataclass(frozen=True)
class Services:
    """Everything outside, as small objects; tests pass other implementations of the same Protocols."""

    settings: Settings
    sources: Mapping[SourceKind, PullRequestSource]
    checkouts: Checkouts
    sandboxes: SandboxBackend
    artifacts: ArtifactStore
    agent: Callable[[AgentSpec], Agent]
    label: str = ""  # "<job>.<fence>" of the job in hand
    journals: Callable[[int, str], RolloutJournal] = lambda _rollout_id, _label: ForgetfulJournal()
    critic: Callable[[str], Critic] = no_critic


@dataclass(frozen=True)
class NextJob:
    """A job that follows. `again` re-opens one that has ended."""

    stage: StageName
    subject_id: int
    again: bool = False


@dataclass(frozen=True)
class Saved:
    """What `save` asks of the pipeline: the jobs that follow, or the verdict that ends the subject's way."""

    next_jobs: tuple[NextJob, ...] = ()
    rejected: Rejected | None = None


@dataclass(frozen=True)
class Stage[I, O]:
    """One step of work. `save` is handed a Rejected when `work` raised one, and then records that verdict."""

    name: StageName
    load: Callable[[Session, int], I]
    work: Callable[[Services, I], O]
    save: Callable[[Session, int, O | Rejected], Saved]
