"""The catalog's tables. One property: what is here is the truth, everything else can be made again.

    repository 1─n crawl (one a source)
               1─n pull_request n─n issue            what the sources said, merged
                      1│ (pull_request_issue)
                   task_instance n─1 environment 1─n environment_build
                      1│        │1
              validation n      n rollout n─1 agent_config, campaign
                      │           1─n rollout_attempt, rollout_step, rollout_event, rollout_flag, rollout_score
                      1│        │1
                    test_run (of a validation, or of a rollout's grading)
                      1│                      (test_verdict: of a validation, what its runs say of each test)
                    test_outcome
    job: one step of work on one subject · stage_hold: a stage that may begin none
    artifact: a stored file · export: a read-only copy out
    api_answer, api_quota: what GitHub said last, and how much each credential may still ask

Enums are stored by their value, times are aware and UTC, every table has a natural unique key.
"""

import enum
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, DateTime, Dialect, Enum, Index, Text, TypeDecorator, UniqueConstraint
from sqlmodel import Field, SQLModel

from db.enums import (
    AgentKind,
    AttemptWay,
    Change,
    ExitStatus,
    ExportFormat,
    FlagKind,
    InstanceStatus,
    JobState,
    Outcome,
    RejectReason,
    RunState,
    RunStatus,
    SourceKind,
    Stability,
    StageName,
    Tier,
    ValidationVerdict,
)

# Named constraints: a migration can only change what has the same name on every database.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time. SQLite drops time zones, so a naive value is refused and UTC restored on load."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value!r}: the catalog stores aware UTC times only")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _enum(kind: type[enum.StrEnum]) -> Enum:
    """By value, as text: names would break hand-written SQL, a native type would break migrations."""
    return Enum(
        kind, values_callable=lambda e: [m.value for m in e], native_enum=False, length=32, create_constraint=False
    )


def _time(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_type=UtcDateTime, nullable=nullable)


def _text(*, nullable: bool = False) -> Any:
    return Field(default=None if nullable else "", sa_column=Column(Text, nullable=nullable))


def _json(default: type = dict) -> Any:
    return Field(default_factory=default, sa_column=Column(JSON, nullable=False))


def utc_now() -> datetime:
    """This machine's clock, for bookkeeping columns. Leases use the database's clock, see db.jobs."""
    return datetime.now(UTC)


def _created() -> Any:
    return Field(default_factory=utc_now, sa_type=UtcDateTime, nullable=False)


class Repository(SQLModel, table=True):
    """A repository under watch. Key: name."""

    __tablename__ = "repository"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)  # owner/name
    clone_url: str = ""
    web_url: str = ""
    default_branch: str = ""
    description: str = _text()
    license: str = ""  # SPDX
    language: str = ""  # the one with most bytes, as GitHub counts
    topics: list[str] = _json(list)  # sorted
    n_stars: int = 0
    size_bytes: int = Field(default=0, sa_type=BigInteger)  # of its git data, as GitHub says
    is_archived: bool = False
    is_fork: bool = False
    fork_root: str = Field(default="", index=True)  # the first repository of its fork network; empty unless a fork
    pushed_at: datetime | None = _time(nullable=True)
    facts_at: datetime | None = _time(nullable=True)  # when a source told the facts above
    created_at: datetime = _created()


class Crawl(SQLModel, table=True):
    """One source's way through a repository's merged pull requests. Key: (repository_id, source)."""

    __tablename__ = "crawl"
    __table_args__ = (UniqueConstraint("repository_id", "source"),)
    id: int | None = Field(default=None, primary_key=True)
    repository_id: int = Field(foreign_key="repository.id")
    source: SourceKind = Field(sa_type=_enum(SourceKind))
    numbers: list[int] = _json(list)  # of pull requests to ask for, sorted: what an archive's index holds
    pull_request_limit: int | None = None  # merged PRs that touch tests to take; None is all
    watermark_at: datetime | None = _time(nullable=True)  # crawled up to this update time
    position: str | None = _text(nullable=True)  # where an interrupted crawl goes on
    n_examined: int = 0  # pull requests looked at, repeated looks included
    n_rest: int = 0  # REST calls that cost quota
    n_rest_free: int = 0  # REST calls answered 304, which cost none
    n_graphql: int = 0
    n_graphql_points: int = 0
    crawled_at: datetime | None = _time(nullable=True)
    created_at: datetime = _created()


class ApiAnswer(SQLModel, table=True):
    """GitHub's last answer to a GET, to be asked again for free with its ETag. Key: (credential, url)."""

    __tablename__ = "api_answer"
    __table_args__ = (UniqueConstraint("credential", "url"),)
    id: int | None = Field(default=None, primary_key=True)
    credential: str  # a digest: ETags differ between tokens, and no token is stored
    url: str
    etag: str
    body: bytes  # JSON, deflated
    stored_at: datetime = _created()


class ApiQuota(SQLModel, table=True):
    """What one credential may still ask of one of GitHub's limits. Key: (credential, resource)."""

    __tablename__ = "api_quota"
    __table_args__ = (UniqueConstraint("credential", "resource"),)
    id: int | None = Field(default=None, primary_key=True)
    credential: str  # a digest
    resource: str  # core | graphql | search
    n_left: int | None = None  # None until GitHub has said
    n_limit: int | None = None
    resets_at: datetime | None = _time(nullable=True)
    not_before: datetime | None = _time(nullable=True)  # the next request may start then
    n_asked: int = 0


class PullRequest(SQLModel, table=True):
    """A merged pull request. Key: (repository_id, number)."""

    __tablename__ = "pull_request"
    __table_args__ = (UniqueConstraint("repository_id", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    repository_id: int = Field(foreign_key="repository.id", index=True)
    number: int
    sources: list[str] = _json(list)  # SourceKind values that told of it, sorted
    title: str = _text()
    body: str = _text()
    author: str = ""
    url: str = ""
    base_commit: str = ""
    head_commit: str = ""
    merge_commit: str = ""
    first_commit_at: datetime | None = _time(nullable=True)
    commit_messages: list[str] = _json(list)
    files: list[str] = _json(list)
    opened_at: datetime = _time()
    merged_at: datetime = _time()
    updated_at: datetime = _time()


class Issue(SQLModel, table=True):
    """An issue that a pull request may resolve. Key: (repository_id, number)."""

    __tablename__ = "issue"
    __table_args__ = (UniqueConstraint("repository_id", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    repository_id: int = Field(foreign_key="repository.id", index=True)
    number: int
    title: str = _text()
    body: str = _text()
    author: str = ""
    url: str = ""
    opened_at: datetime | None = _time(nullable=True)
    comments: list[dict[str, Any]] = _json(list)  # [{"author", "created_at", "edited_at", "body"}], oldest first


class PullRequestIssue(SQLModel, table=True):
    """That a pull request resolves an issue, by which signals. Key: the pair."""

    __tablename__ = "pull_request_issue"
    pull_request_id: int = Field(foreign_key="pull_request.id", primary_key=True)
    issue_id: int = Field(foreign_key="issue.id", primary_key=True, index=True)
    signals: list[str] = _json(list)  # LinkSignal values, sorted
    confidence: float = 0.0  # 0..1


class Environment(SQLModel, table=True):
    """A recipe and its lock; many task instances share one. Key: digest."""

    __tablename__ = "environment"
    id: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)  # sha256:… over python version, lock, system packages
    python_version: str  # "3.9"
    lock_digest: str  # sha256:… of the lock's text, an artifact
    recipe: dict[str, Any] = _json()
    system_packages: list[str] = _json(list)
    n_packages: int = 0
    resolved_as_of: datetime = _time()
    created_at: datetime = _created()


class EnvironmentBuild(SQLModel, table=True):
    """An environment materialised for one kind of sandbox. Key: (environment_id, sandbox)."""

    __tablename__ = "environment_build"
    __table_args__ = (UniqueConstraint("environment_id", "sandbox"),)
    id: int | None = Field(default=None, primary_key=True)
    environment_id: int = Field(foreign_key="environment.id")
    sandbox: str  # SandboxBackend.name
    locator: str  # image name or folder name
    size_bytes: int = 0
    unique_bytes: int = Field(default=0, sa_type=BigInteger)  # free without it; 0 once it is evicted
    shared_bytes: int = Field(default=0, sa_type=BigInteger)  # other environments or a cache hold them too
    duration_s: float = 0.0
    built_at: datetime = _created()
    last_used_at: datetime | None = _time(nullable=True)
    evicted_at: datetime | None = _time(nullable=True)  # None: it stands, as far as the catalog was told


class TaskInstance(SQLModel, table=True):
    """One pull request and its issues as a problem. Keys: instance_id, pull_request_id."""

    __tablename__ = "task_instance"
    id: int | None = Field(default=None, primary_key=True)
    instance_id: str = Field(unique=True)  # owner__name-NUMBER
    repository_id: int = Field(foreign_key="repository.id", index=True)
    pull_request_id: int = Field(foreign_key="pull_request.id", unique=True)
    environment_id: int | None = Field(default=None, foreign_key="environment.id", index=True)
    build_environment_id: int | None = Field(default=None, foreign_key="environment.id", index=True)  # its own modules'
    status: InstanceStatus = Field(default=InstanceStatus.CANDIDATE, sa_type=_enum(InstanceStatus), index=True)
    reject_reason: RejectReason | None = Field(default=None, sa_type=_enum(RejectReason), nullable=True)
    reject_detail: str = _text()
    base_commit: str
    environment_setup_commit: str = ""
    version: str = ""
    patch: str = _text()
    test_patch: str = _text()
    test_files: list[str] = _json(list)  # test modules the test_patch leaves on disk, relative to the root
    problem_statement: str = _text()
    hints_text: str = _text()
    statement_strips: list[str] = _json(list)  # rules that took something out of the two texts, in order
    license: str = ""  # the repository's SPDX id when it was mined
    decontamination: dict[str, Any] = _json()  # the benchmark lists it was held against, and what matched
    patch_digest: str = Field(default="", index=True)  # of the normalised patch, see swefactory.decontamination
    issue_signature: str = _text()  # MinHash of the issues' texts
    project: dict[str, Any] = _json()  # ProjectLayout: how the checkout is made importable
    recipe: dict[str, Any] = _json()  # its own recipe and what was tried, also when rejected: "environment explain"
    test_command: list[str] = _json(list)
    fail_to_pass: list[str] = _json(list)
    pass_to_pass: list[str] = _json(list)
    published: dict[str, Any] = _json()  # of an import: its lists of tests, which it is held to; {}: mined here
    created_at: datetime = _time()  # when the pull request was opened, as in SWE-bench
    validated_at: datetime | None = _time(nullable=True)
    tier: Tier | None = Field(default=None, sa_type=_enum(Tier), nullable=True)  # of its next validation; None: setting


class IssueTextBand(SQLModel, table=True):
    """Bands of an instance's issue_signature: two alike texts share one, so that a look-up finds them without a scan.
    Key: (task_instance_id, band)."""

    __tablename__ = "issue_text_band"
    __table_args__ = (Index("ix_issue_text_band_digest", "band", "digest"),)
    task_instance_id: int = Field(foreign_key="task_instance.id", primary_key=True)
    band: int = Field(primary_key=True)
    digest: str


class Validation(SQLModel, table=True):
    """The evaluations that prove, or disprove, a task instance. Key: (task_instance_id, number)."""

    __tablename__ = "validation"
    __table_args__ = (UniqueConstraint("task_instance_id", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    task_instance_id: int = Field(foreign_key="task_instance.id", index=True)
    environment_id: int = Field(foreign_key="environment.id")
    number: int  # 1 is the first
    verdict: ValidationVerdict = Field(sa_type=_enum(ValidationVerdict))
    reason: RejectReason | None = Field(default=None, sa_type=_enum(RejectReason), nullable=True)
    sandbox: str
    tier: Tier | None = Field(default=None, sa_type=_enum(Tier), nullable=True)  # None: before there were tiers
    n_runs: int  # per state
    n_flaky: int = 0
    certificate: dict[str, Any] = _json()
    started_at: datetime = _time()
    finished_at: datetime = _time()


class AgentConfig(SQLModel, table=True):
    """Who solves tasks and within which limits. Key: digest of everything but the name."""

    __tablename__ = "agent_config"
    id: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)
    name: str
    kind: AgentKind = Field(sa_type=_enum(AgentKind))
    model: str = ""  # as LiteLLM names it; empty for oracle and nop
    parameters: dict[str, Any] = _json()  # AgentSpec without keys or secrets
    created_at: datetime = _created()


class Campaign(SQLModel, table=True):
    """Rollouts that share a budget. Key: name."""

    __tablename__ = "campaign"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    max_cost_usd: float | None = None
    max_duration_s: float | None = None  # from the start of its first rollout
    cost_usd: float = 0.0  # billed so far, also to attempts that were lost
    created_at: datetime = _created()
    started_at: datetime | None = _time(nullable=True)


class Rollout(SQLModel, table=True):
    """One agent run on one task instance. Key: (task_instance_id, agent_config_id, replica)."""

    __tablename__ = "rollout"
    __table_args__ = (UniqueConstraint("task_instance_id", "agent_config_id", "replica"),)
    id: int | None = Field(default=None, primary_key=True)
    task_instance_id: int = Field(foreign_key="task_instance.id", index=True)
    agent_config_id: int = Field(foreign_key="agent_config.id", index=True)
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id", index=True)
    replica: int = 1
    cancel_requested_at: datetime | None = _time(nullable=True)
    exit_status: ExitStatus | None = Field(default=None, sa_type=_enum(ExitStatus), nullable=True)
    exit_detail: str = _text()
    model_patch: str | None = _text(nullable=True)
    resolved: bool | None = None  # None until graded: what the tests said
    suspicious: list[str] = _json(list)  # rules of swefactory.suspicion that the patch meets; no rate counts it then
    n_turns: int = 0
    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0
    n_truncations: int = 0  # how often a condenser rewrote what the model sees
    cost_usd: float = 0.0  # of what led to its end
    lost_cost_usd: float = 0.0  # billed besides, to attempts that broke off
    model_s: float = 0.0
    tools_s: float = 0.0
    overhead_s: float = 0.0
    duration_s: float = 0.0
    trajectory_digest: str | None = None  # an artifact: OpenHands events, one JSON object a line
    messages_digest: str | None = None  # an artifact: {"messages": […], "tools": […]}
    created_at: datetime = _created()
    started_at: datetime | None = _time(nullable=True)
    finished_at: datetime | None = _time(nullable=True)


class RolloutAttempt(SQLModel, table=True):
    """One try at a rollout: a worker that died leaves one behind. Key: (rollout_id, number)."""

    __tablename__ = "rollout_attempt"
    __table_args__ = (UniqueConstraint("rollout_id", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    rollout_id: int = Field(foreign_key="rollout.id", index=True)
    number: int  # 1 is the first
    way: AttemptWay = Field(sa_type=_enum(AttemptWay))
    detail: str = _text()  # from where it was resumed, or why it was not
    label: str = ""  # "<job>.<fence>"
    started_at: datetime = _created()
    checkpoint_at: datetime | None = _time(nullable=True)
    n_checkpoint_steps: int = 0  # steps and events that the checkpoint comes after
    n_checkpoint_events: int = 0
    checkpoint_patch: str = _text()  # the tree against the base commit
    checkpoint_files: bytes = b""  # a tar of what lies outside the tree, gzipped


class RolloutStep(SQLModel, table=True):
    """One answer of the model and what its tools did. Key: (rollout_id, attempt, number)."""

    __tablename__ = "rollout_step"
    __table_args__ = (UniqueConstraint("rollout_id", "attempt", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    rollout_id: int = Field(foreign_key="rollout.id", index=True)
    attempt: int
    number: int
    response_id: str = ""
    n_events: int = 0  # of the trajectory, up to its end
    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0
    cost_usd: float = 0.0
    model_s: float = 0.0
    tools_s: float = 0.0
    overhead_s: float = 0.0  # neither model nor tools: OpenHands, the journal, checkpoints
    tools: list[str] = _json(list)  # in the order they were called
    n_errors: int = 0  # tool calls that failed or could not be read
    recorded_at: datetime = _created()


class RolloutEvent(SQLModel, table=True):
    """An event of a running rollout, stored as it came; an artifact holds them once it has ended.
    Key: (rollout_id, attempt, number)."""

    __tablename__ = "rollout_event"
    __table_args__ = (UniqueConstraint("rollout_id", "attempt", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    rollout_id: int = Field(foreign_key="rollout.id", index=True)
    attempt: int
    number: int  # 0 is the first
    body: str = _text()  # JSON


class RolloutFlag(SQLModel, table=True):
    """Something in a trajectory that looks like cheating, and where. Key: (rollout_id, kind, event_number)."""

    __tablename__ = "rollout_flag"
    __table_args__ = (UniqueConstraint("rollout_id", "kind", "event_number"),)
    id: int | None = Field(default=None, primary_key=True)
    rollout_id: int = Field(foreign_key="rollout.id", index=True)
    kind: FlagKind = Field(sa_type=_enum(FlagKind))
    event_number: int  # the line of the trajectory, from 0
    event_id: str = ""
    excerpt: str = _text()


class RolloutScore(SQLModel, table=True):
    """What a critic says of a rollout, or is asked to say. `evidence_id` is who wrote the reproduction tests in
    question, else the rollout itself. Key: (rollout_id, critic, evidence_id)."""

    __tablename__ = "rollout_score"
    __table_args__ = (UniqueConstraint("rollout_id", "critic", "evidence_id"),)
    id: int | None = Field(default=None, primary_key=True)
    rollout_id: int = Field(foreign_key="rollout.id", index=True)
    critic: str  # pass_to_pass | reproduction | judge:MODEL | reward:MODEL
    evidence_id: int = Field(foreign_key="rollout.id", index=True)
    score: float | None = None  # None: not asked yet, or nothing to go by, see detail; higher is better
    detail: dict[str, Any] = _json()
    cost_usd: float = 0.0
    asked_at: datetime = _created()
    scored_at: datetime | None = _time(nullable=True)  # None: not yet


class TestRun(SQLModel, table=True):
    """One run of the tests in one fresh sandbox. Key: (validation_id or rollout_id, state, number)."""

    __test__ = False
    __tablename__ = "test_run"
    __table_args__ = (
        UniqueConstraint("validation_id", "state", "number"),
        UniqueConstraint("rollout_id", "state", "number"),
    )
    id: int | None = Field(default=None, primary_key=True)
    validation_id: int | None = Field(default=None, foreign_key="validation.id", index=True)
    rollout_id: int | None = Field(default=None, foreign_key="rollout.id", index=True)
    state: RunState = Field(sa_type=_enum(RunState))
    number: int
    status: RunStatus = Field(sa_type=_enum(RunStatus))
    detail: str = _text()
    order: str = "default"  # default | reversed | random:SEED
    conditions: dict[str, Any] = _json()  # as measured inside: hash_seed, cpu_share, utc_offset, clock_shift_s, network
    exit_code: int | None = None
    n_collected: int = 0
    duration_s: float = 0.0
    log_digest: str | None = None  # an artifact: the capped output of the test command


class TestOutcome(SQLModel, table=True):
    """How one test ended in one run. Key: (test_run_id, test_id), by the id's digest: ids can be longer than
    PostgreSQL's indexes take (2.7 kB), and are never cut."""

    __test__ = False
    __tablename__ = "test_outcome"
    __table_args__ = (UniqueConstraint("test_run_id", "test_digest"),)
    id: int | None = Field(default=None, primary_key=True)
    test_run_id: int = Field(foreign_key="test_run.id", index=True)
    test_id: str = _text()  # pytest node id, whole
    test_digest: str  # sha256:… of test_id in UTF-8
    outcome: Outcome = Field(sa_type=_enum(Outcome))
    duration_s: float = 0.0
    message: str = _text()


class TestVerdict(SQLModel, table=True):
    """What a validation's runs say of one test. Key: (validation_id, test_id), by the id's digest."""

    __test__ = False
    __tablename__ = "test_verdict"
    __table_args__ = (UniqueConstraint("validation_id", "test_digest"),)
    id: int | None = Field(default=None, primary_key=True)
    validation_id: int = Field(foreign_key="validation.id", index=True)
    test_id: str = _text()
    test_digest: str
    change: Change = Field(sa_type=_enum(Change))
    before: Stability = Field(sa_type=_enum(Stability))
    after: Stability = Field(sa_type=_enum(Stability))
    n_runs: int  # of the state that ran less often
    n_flips: int  # runs that differ from most of their state
    flip_rate_upper: float  # 95 % upper bound of how often a run differs, the larger of the two states'


class Artifact(SQLModel, table=True):
    """A stored file, named by its hash. Key: digest."""

    __tablename__ = "artifact"
    id: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)  # sha256:…
    size_bytes: int
    media_type: str
    created_at: datetime = _created()


class Job(SQLModel, table=True):
    """One step of work on one subject. Key: (stage, subject_id). Written by db.jobs only."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("stage", "subject_id"),
        Index("ix_job_claim", "stage", "state", "turn", "id"),
        Index("ix_job_turn", "stage", "state", "repository_id", "turn"),
    )
    id: int | None = Field(default=None, primary_key=True)
    stage: StageName = Field(sa_type=_enum(StageName))
    subject_id: int
    repository_id: int | None = Field(default=None, foreign_key="repository.id")  # with whose jobs it takes turns
    turn: int = Field(default=0, sa_type=BigInteger)  # lower first; see db.turns
    state: JobState = Field(default=JobState.TODO, sa_type=_enum(JobState))
    priority: int = 0  # higher first, by its turn
    attempt: int = 0
    max_attempts: int = 3
    fence: int = 0  # grows with each claim; only its holder may finish
    not_before: datetime = _created()
    lease_owner: str = ""
    lease_until: datetime | None = _time(nullable=True)
    reason: RejectReason | None = Field(default=None, sa_type=_enum(RejectReason), nullable=True)
    message: str = _text()
    created_at: datetime = _created()
    started_at: datetime | None = _time(nullable=True)
    finished_at: datetime | None = _time(nullable=True)


class StageHold(SQLModel, table=True):
    """A stage of which no job may begin. Key: stage. Written by db.jobs only."""

    __tablename__ = "stage_hold"
    stage: StageName = Field(sa_type=_enum(StageName), primary_key=True)
    reason: str = _text()
    created_at: datetime = _created()


class Export(SQLModel, table=True):
    """A read-only copy out of the catalog. Key: (format, path)."""

    __tablename__ = "export"
    __table_args__ = (UniqueConstraint("format", "path"),)
    id: int | None = Field(default=None, primary_key=True)
    format: ExportFormat = Field(sa_type=_enum(ExportFormat))
    path: str
    n_rows: int
    sha256: str
    created_at: datetime = _created()
