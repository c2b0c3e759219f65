"""Everything the demo talks to: the sample repository's GitHub and the scripted model.

On loopback for `swefactory demo`; for a cluster (compose.demo.yaml) `python -m swefactory.demo.servers FOLDER` serves
both on every interface, the history below FOLDER, until it is ended.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swefactory.demo.github_server import github_server
from swefactory.demo.history import DemoHistory, build_history
from swefactory.demo.model_server import MODEL, model_server

_TOKEN, _API_KEY = "demo-github-token", "demo-model-api-key"
_EVERYWHERE, _GITHUB_PORT, _MODEL_PORT = "0.0.0.0", 8080, 8081  # noqa: S104 - in a container's own network


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
def demo_servers(folder: Path, *, is_open: bool = False) -> Iterator[DemoServers]:
    """Makes the sample history below `folder` and serves it while the context is open; `is_open` to other machines,
    at ports that they know."""
    history = build_history(folder / "sample")
    github, model = ((_EVERYWHERE, port) if is_open else ("127.0.0.1", 0) for port in (_GITHUB_PORT, _MODEL_PORT))
    with (
        github_server(history, token=_TOKEN, address=github) as github_url,
        model_server(api_key=_API_KEY, address=model) as model_url,
    ):
        yield DemoServers(history, github_url, _TOKEN, model_url, _API_KEY)


if __name__ == "__main__":
    with demo_servers(Path(sys.argv[1]), is_open=True):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
