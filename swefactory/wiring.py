"""Settings -> Services: the one place that knows which implementation stands behind each Protocol."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from db.api_answers import SqlAnswers
from db.api_quotas import SqlQuotas
from db.enums import SourceKind
from swefactory.artifacts import LocalArtifacts
from swefactory.checkouts import Checkouts
from swefactory.config import Settings
from swefactory.errors import UsageError
from swefactory.protocols import Agent, AgentSpec, ArtifactStore, Critic, PullRequestSource
from swefactory.rollout_journals import SqlJournal
from swefactory.sandbox_protocols import KeepingBackend
from swefactory.stage import Services

if TYPE_CHECKING:
    from swefactory.sandboxes.docker import DockerBackend
    from swefactory.sources.github_client import GitHubClient


def make_services(settings: Settings, engine: Engine) -> Services:
    """The real parts, as `settings` ask for them. Opens no connection yet; `engine` is for what processes share of
    GitHub's limits."""
    token = next(iter(settings.github_tokens), "")
    checkouts = Checkouts(settings.mirrors, settings.cache_dir, token, settings.github_url)
    return Services(
        settings=settings,
        sources=make_sources(settings, checkouts, engine),
        checkouts=checkouts,
        sandboxes=make_sandboxes(settings),
        artifacts=make_artifacts(settings),
        agent=lambda spec: make_agent(spec, settings),
        journals=lambda rollout_id, label: SqlJournal(engine, rollout_id, label),
        critic=lambda name: make_critic(name, settings),
    )


def make_artifacts(settings: Settings) -> ArtifactStore:
    """A folder, or a bucket where `settings.artifact_url` names one. Raises UsageError without boto3."""
    if not settings.artifact_url:
        return LocalArtifacts(settings.artifacts_dir)
    try:
        from swefactory.s3_artifacts import S3Artifacts
    except ModuleNotFoundError as error:
        raise UsageError("artifacts in a bucket need boto3; install swefactory[s3]") from error
    bucket, _, prefix = settings.artifact_url.removeprefix("s3://").partition("/")
    return S3Artifacts(bucket, prefix.strip("/"))


def make_sources(settings: Settings, checkouts: Checkouts, engine: Engine) -> Mapping[SourceKind, PullRequestSource]:
    """Every source of pull requests by its kind. A GitHub App's installations are asked for by the first crawl only."""
    from swefactory.sources.git_history import GitHistorySource
    from swefactory.sources.github import GitHubSource

    github = GitHubSource(lambda: make_github_client(settings, engine))
    return {
        SourceKind.GITHUB: github,
        SourceKind.GH_ARCHIVE: github,
        SourceKind.GIT_HISTORY: GitHistorySource(checkouts),
    }


def make_github_client(settings: Settings, engine: Engine) -> "GitHubClient":
    """GitHub's API, asked by the settings' pool of credentials. Raises UsageError."""
    from swefactory.sources import credentials
    from swefactory.sources.github_client import GitHubClient

    pool = credentials.of_settings(settings)
    quotas = SqlQuotas(engine, settings.github_pause_s)
    return GitHubClient(settings.github_url, pool, quotas, SqlAnswers(engine))


def make_sandboxes(settings: Settings) -> KeepingBackend:
    """The kind of sandbox that `settings.sandbox` names; docker's SDK is loaded only for docker."""
    if settings.sandbox == "docker":
        return make_docker(settings)
    from swefactory.sandboxes.namespace import NamespaceBackend

    return NamespaceBackend(
        settings.cache_dir,
        extra_interpreter_folders=_interpreter_folders(settings),
        build_timeout_s=settings.build_timeout_s,
        disk_budget_bytes=settings.disk_budget,
    )


def make_docker(settings: Settings) -> "DockerBackend":
    """The docker sandbox, whatever `settings.sandbox` names."""
    from swefactory.sandboxes.docker import DockerBackend
    from swefactory.sandboxes.docker_launched import Launcher

    token = settings.launcher_token.get_secret_value()
    return DockerBackend(
        settings.cache_dir,
        docker_host=settings.docker_host,
        base_image=settings.docker_base_image,
        build_timeout_s=settings.build_timeout_s,
        extra_interpreter_folders=_interpreter_folders(settings),
        disk_budget_bytes=settings.disk_budget,
        registry=settings.image_registry,
        shares_builds=settings.image_push,
        launcher=Launcher(settings.launcher_url.rstrip("/"), token) if settings.launcher_url else None,
        build_settings=settings.build_settings,
    )


def _interpreter_folders(settings: Settings) -> list[str]:
    return [folder for folder in settings.interpreters.split(":") if folder]


def make_agent(spec: AgentSpec, settings: Settings) -> Agent:
    """The agent a spec names; OpenHands takes seconds to load and is loaded only when it is asked for."""
    from swefactory.agents.registry import make_agent as registered

    return registered(spec, settings)


def make_critic(name: str, settings: Settings) -> Critic:
    """The critic of this name; LiteLLM, too, is loaded only when it is asked for."""
    from swefactory.agents.critics import make_critic as made

    return made(name, settings)
