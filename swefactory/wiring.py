"""Settings -> Services: the one place that knows which implementation stands behind each Protocol."""

from collections.abc import Mapping

from db.models import SourceKind
from swefactory.artifacts import LocalArtifacts
from swefactory.checkouts import Checkouts
from swefactory.config import Settings
from swefactory.protocols import Agent, AgentSpec, PullRequestSource, SandboxBackend
from swefactory.stage import Services


def make_services(settings: Settings) -> Services:
    """The real parts, as `settings` ask for them. Opens no connection yet."""
    token = settings.github_token.get_secret_value()
    checkouts = Checkouts(settings.mirrors, settings.cache_dir, token, settings.github_url)
    return Services(
        settings=settings,
        sources=make_sources(settings, checkouts),
        checkouts=checkouts,
        sandboxes=make_sandboxes(settings),
        artifacts=LocalArtifacts(settings.artifacts_dir),
        agent=lambda spec: make_agent(spec, settings),
    )


def make_sources(settings: Settings, checkouts: Checkouts) -> Mapping[SourceKind, PullRequestSource]:
    """Every source of pull requests by its kind."""
    from swefactory.sources.git_history import GitHistorySource
    from swefactory.sources.github import GitHubSource

    return {
        SourceKind.GITHUB: GitHubSource(settings.github_url, settings.github_token.get_secret_value()),
        SourceKind.GIT_HISTORY: GitHistorySource(checkouts),
    }


def make_sandboxes(settings: Settings) -> SandboxBackend:
    """The kind of sandbox that `settings.sandbox` names; docker's SDK is loaded only for docker."""
    folders = [folder for folder in settings.interpreters.split(":") if folder]
    if settings.sandbox == "docker":
        from swefactory.sandboxes.docker import DockerBackend

        return DockerBackend(
            settings.cache_dir,
            docker_host=settings.docker_host,
            base_image=settings.docker_base_image,
            build_timeout_s=settings.build_timeout_s,
            extra_interpreter_folders=folders,
        )
    from swefactory.sandboxes.namespace import NamespaceBackend

    return NamespaceBackend(
        settings.cache_dir, extra_interpreter_folders=folders, build_timeout_s=settings.build_timeout_s
    )


def make_agent(spec: AgentSpec, settings: Settings) -> Agent:
    """The agent a spec names; OpenHands takes seconds to load and is loaded only when it is asked for."""
    from swefactory.agents.registry import make_agent as registered

    return registered(spec, settings)
