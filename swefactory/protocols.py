"""The Protocols behind which everything outside lives, and the values that cross them.

Pure: no effect, no import of an adapter. Sources, recipes, sandboxes, agents and the artifact store know this
page and not each other. Every value is frozen; times are aware and UTC, sizes bytes, durations seconds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from db.enums import AgentKind, ExitStatus, LinkSignal
from swefactory.journals import Journal
from swefactory.sandbox_protocols import Sandbox

# ---------------------------------------------------------------- sources of pull requests


@dataclass(frozen=True)
class RepositoryRecord:
    """What a source says of a repository. `name` is its present name: a renamed one answers with the new."""

    name: str
    clone_url: str
    web_url: str
    default_branch: str
    description: str = ""
    license: str = ""  # SPDX; empty where none is known
    language: str = ""
    topics: tuple[str, ...] = ()
    n_stars: int = 0
    size_bytes: int = 0
    is_archived: bool = False
    is_fork: bool = False
    fork_root: str = ""  # the first repository of its fork network; empty unless it is a fork
    pushed_at: datetime | None = None


@dataclass(frozen=True)
class CommentRecord:
    """A comment on an issue; `edited_at` None where the source cannot know it."""

    author: str
    created_at: datetime
    body: str
    edited_at: datetime | None = None


@dataclass(frozen=True)
class IssueRecord:
    """An issue; `opened_at` None and texts empty where the source cannot know them."""

    number: int
    title: str
    body: str
    author: str = ""
    url: str = ""
    opened_at: datetime | None = None
    comments: tuple[CommentRecord, ...] = ()


@dataclass(frozen=True)
class IssueLink:
    """That a pull request resolves `issue`, with the signals that say so."""

    issue: IssueRecord
    signals: frozenset[LinkSignal]


@dataclass(frozen=True)
class PullRequestRecord:
    """A merged pull request. `base_commit` is the API's base.sha or, in git history, the fork point of a merge and
    the parent of a squash; commits and files are in the source's order."""

    number: int
    title: str
    body: str
    author: str
    url: str
    base_commit: str
    head_commit: str
    merge_commit: str
    opened_at: datetime
    merged_at: datetime
    updated_at: datetime
    first_commit_at: datetime | None = None
    commit_messages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    issues: tuple[IssueLink, ...] = ()


@dataclass(frozen=True)
class PullRequestPage:
    """Some merged pull requests, newest update first, and where to go on; `cursor` None after the last. All updated
    until `covered_until` are on this page or a later one; None where the source cannot tell."""

    pull_requests: tuple[PullRequestRecord, ...]
    cursor: str | None
    covered_until: datetime | None = None


@dataclass(frozen=True)
class ApiUsage:
    """What was asked of an API: `n_rest_free` are answers 304, which cost no quota."""

    n_rest: int = 0
    n_rest_free: int = 0
    n_graphql: int = 0
    n_graphql_points: int = 0


type CitedIssues = Callable[[Sequence[PullRequestRecord]], Mapping[int, frozenset[int]]]
"""From pull requests to the issues that their changelog entries cite: pull request number -> issue numbers."""


class PullRequestSource(Protocol):
    """Where pull requests come from."""

    def repository(self, name: str) -> RepositoryRecord:
        """Raises Rejected(REPOSITORY_NOT_FOUND), Transient on limits and outages, UsageError on a bad token."""
        ...

    def pages(
        self,
        name: str,
        since: datetime | None,
        cursor: str | None,
        *,
        numbers: Sequence[int] = (),
        cited: CitedIssues | None = None,
    ) -> Iterator[PullRequestPage]:
        """Merged pull requests updated at or after `since`, from `cursor` on; with `numbers` only those, whenever
        updated. What `cited` finds counts as evidence for links. Errors as `repository`."""
        ...

    def usage(self) -> ApiUsage:
        """What was asked of an API since this was last called."""
        ...


class Quotas(Protocol):
    """How much each credential may still ask of GitHub, shared by all processes. A credential is named by a digest."""

    def take(self, credential: str, resource: str, patience_s: float) -> float:
        """Seconds until the next request of `resource` (core, graphql, search) may start. Up to `patience_s` its
        place is taken; beyond that nothing is."""
        ...

    def note(self, credential: str, resource: str, n_left: int, n_limit: int, resets_at: datetime) -> None:
        """What GitHub's headers say."""
        ...

    def block(self, credential: str, wait_s: float, resource: str | None = None) -> None:
        """No request before `wait_s` from now: of one resource, or of any."""
        ...


class Answers(Protocol):
    """Last answers to GET requests by credential and address, to be asked again with their ETag."""

    def get(self, credential: str, url: str) -> tuple[str, bytes] | None:
        """ETag and body."""
        ...

    def put(self, credential: str, url: str, etag: str, body: bytes) -> None: ...


# ---------------------------------------------------------------- recipes


@dataclass(frozen=True)
class ProjectLayout:
    """How a checkout is made importable without a build: what goes into its static metadata.

    `source_roots` are folders relative to the checkout ("." or "src") that go on sys.path.
    """

    name: str
    version: str
    source_roots: tuple[str, ...] = (".",)
    entry_points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # group -> name -> "module:attr"
    requires: tuple[str, ...] = ()  # its declared run-time requirements, for the metadata
    generated_files: Mapping[str, str] = field(default_factory=dict)  # path -> text a build would write into the tree
    folder: str = "."  # where the project is in the checkout: its setup.py and pyproject.toml
    neighbours: Mapping[str, str] = field(default_factory=dict)  # name -> version: the repository's others it needs


@dataclass(frozen=True)
class Considered:
    """A Python version that something names, and what became of it: "chosen", or the reason why not."""

    version: str
    origin: str
    verdict: str


@dataclass(frozen=True)
class Rung:
    """One kind of place that says what the tests need. `origins` maps each requirement to its file and key or line.
    A fallback is a place not named for tests; it counts only where nothing better does."""

    name: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    is_fallback: bool = False


@dataclass(frozen=True)
class Attempt:
    """A rung or a repair that was tried, and whether what it gave was used in the end. `detail` says what it changed,
    or why it failed."""

    kind: str  # "rung" or "repair"
    name: str
    worked: bool
    detail: str = ""
    n_requirements: int = 0  # of a rung that worked: those which no rung before it had


@dataclass(frozen=True)
class Recipe:
    """How an environment was decided, from files alone. `why` maps a fact's name to where it came from."""

    python_version: str  # "3.9"
    requirements: tuple[str, ...]  # PEP 508, sorted, without the project itself
    constraints: tuple[str, ...]
    system_packages: tuple[str, ...]
    test_command: tuple[str, ...]  # argv after the interpreter, e.g. ("-m", "pytest")
    environment_variables: Mapping[str, str]
    layout: ProjectLayout
    as_of: datetime
    why: Mapping[str, str] = field(default_factory=dict)
    repairs: tuple[str, ...] = ()  # names of the repairs applied while resolving, in order
    origins: Mapping[str, str] = field(default_factory=dict)  # requirement, system package, variable -> file and place
    considered: tuple[Considered, ...] = ()  # every Python that something names, in the order of choice
    rungs: tuple[Rung, ...] = ()  # what the tests need by place, best first; `requirements` holds those in use
    always: tuple[str, ...] = ()  # those of `requirements` that come whatever rungs hold
    attempts: tuple[Attempt, ...] = ()  # rungs and repairs tried, in order
    build_packages: tuple[str, ...] = ()  # system packages that only a build from source needs
    compiled: str = ""  # what asks for a compiler: "ext_modules in setup.py"; empty: the project is pure Python
    build_requirements: tuple[str, ...] = ()  # PEP 508, sorted: what builds its extension modules; empty: nothing does


# ---------------------------------------------------------------- agents


@dataclass(frozen=True)
class AgentSpec:
    """Who solves a task and within which limits. Holds no secret. `n_replicas` is what one asks for unless told
    otherwise; it changes nothing of what the agent does."""

    kind: AgentKind
    name: str
    model: str = ""
    max_turns: int = 100
    max_cost_usd: float | None = None
    timeout_s: float = 3600
    command_timeout_s: float = 300
    parameters: Mapping[str, Any] = field(default_factory=dict)  # LiteLLM's: temperature, top_p, …
    max_tokens: int | None = None  # prompts and answers together, over all turns
    prompts: Mapping[str, str] = field(default_factory=dict)  # system, task, continue -> text; the rest are our own
    tools: tuple[str, ...] = ("terminal", "file_editor")  # beside finish and think
    condenser: Mapping[str, Any] = field(default_factory=dict)  # of LLMSummarizingCondenser; empty: none
    n_replicas: int = 1


@dataclass(frozen=True)
class Problem:
    """What an agent may know. The oracle alone is handed `gold_patch`."""

    instance_id: str
    statement: str
    gold_patch: str = ""


@dataclass(frozen=True)
class AgentResult:
    """How an agent's run ended. `events` and `messages` are JSON texts; the patch is taken from the sandbox by
    the caller, never from the agent."""

    exit_status: ExitStatus
    exit_detail: str = ""
    n_turns: int = 0
    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0
    n_truncations: int = 0  # how often a condenser rewrote what the model sees
    cost_usd: float = 0.0
    model_s: float = 0.0
    tools_s: float = 0.0
    overhead_s: float = 0.0
    events: bytes = b""  # one JSON object a line
    messages: bytes = b""  # {"messages": […], "tools": […]}, OpenAI's chat format


class Agent(Protocol):
    """Solves a problem inside an open sandbox by changing the tree at CHECKOUT_DIR."""

    def solve(self, problem: Problem, sandbox: Sandbox, journal: Journal = ...) -> AgentResult:
        """Goes on from `journal.past`, which the sandbox already holds the changes of."""
        ...


# ---------------------------------------------------------------- critics


@dataclass(frozen=True)
class CriticQuestion:
    """All that a critic may know of a rollout: no gold patch, no test_patch, no FAIL_TO_PASS, no verdict."""

    instance_id: str
    statement: str
    model_patch: str


@dataclass(frozen=True)
class CriticAnswer:
    """`score` is higher for the better; None when the answer could not be read, `detail` then says why."""

    score: float | None
    detail: Mapping[str, object] = field(default_factory=dict)
    cost_usd: float = 0.0


class Critic(Protocol):
    """Says how good a patch is, from the problem and the patch alone."""

    def score(self, question: CriticQuestion) -> CriticAnswer:
        """Raises Transient when it may answer later, UsageError when its address, name or key must be mended."""
        ...


# ---------------------------------------------------------------- artifacts


@dataclass(frozen=True)
class ArtifactRef:
    digest: str  # sha256:…
    size_bytes: int
    media_type: str


class ArtifactStore(Protocol):
    """Files named by their hash; writing the same bytes twice is one file."""

    def put(self, content: bytes, media_type: str) -> ArtifactRef:
        """Written whole or not at all. Raises ArtifactError (disk full, read-only)."""
        ...

    def get(self, digest: str) -> bytes:
        """Raises ArtifactError when it is missing or its bytes no longer match the digest."""
        ...
