"""Everything the demo talks to, on loopback: the sample repository's GitHub and the scripted model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swefactory.demo.github_server import github_server
from swefactory.demo.history import DemoHistory, build_history
from swefactory.demo.model_server import MODEL, model_server

_TOKEN, _API_KEY = "demo-github-token", "demo-model-api-key"


@dataclass(frozen=True)
class DemoServers:
    """Where the servers listen and what they want to see; `model` is the name to ask the model server for."""

    history: DemoHistory
    github_url: str
    github_token: str
    model_url: str
    model_api_key: str
    model: str = MODEL


@contextmanager
def demo_servers(folder: Path) -> Iterator[DemoServers]:
    """Makes the sample history below `folder` and serves it while the context is open."""
    history = build_history(folder / "sample")
    with github_server(history, token=_TOKEN) as github_url, model_server(api_key=_API_KEY) as model_url:
        yield DemoServers(history, github_url, _TOKEN, model_url, _API_KEY)
