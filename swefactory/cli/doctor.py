"""`swefactory doctor`: what this machine can do for us, each line with what to do where something is missing."""

import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import typer

from db.engine import CatalogError, check, make_engine
from swefactory.cli.context import AsJson, settings
from swefactory.cli.output import console, show
from swefactory.config import Settings
from swefactory.errors import EXIT_INFRASTRUCTURE, InfrastructureError, SandboxUnavailable
from swefactory.wiring import make_docker, make_sandboxes

Verdict = Literal["ok", "missing", "optional"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `optional`: absent, and only some uses need it."""

    part: str
    verdict: Verdict
    says: str


def doctor(as_json: AsJson = False) -> None:
    """Check what is here and what is missing; exit code 3 when something needed is.

    Example: `swefactory doctor`
    """
    findings = list(examine(settings()))
    rows = [[finding.part, finding.verdict, finding.says] for finding in findings]
    show(["part", "verdict", "says"], rows, as_json=as_json)
    if any(finding.verdict == "missing" for finding in findings):
        raise typer.Exit(EXIT_INFRASTRUCTURE)
    if not as_json:
        console.print("next: swefactory demo · swefactory repo add owner/name")


def examine(current: Settings) -> Iterator[Finding]:
    """Looks at each part in turn."""
    yield _catalog(current)
    yield _program("git", "apt install git")
    yield _program("uv", "it comes with swefactory's own packages")
    for kind in ("namespace", "docker"):
        yield _sandbox(current, kind)
    yield _build_network(current)
    yield _base_images(current)
    yield _interpreters(current)
    yield _disk(current)
    yield _github(current)
    yield _model(current)
    yield _server("Redis", current.redis_url, "only the cluster needs it")


def _catalog(current: Settings) -> Finding:
    engine = make_engine(current.catalog_url)
    where = engine.url.render_as_string(hide_password=True)
    if not current.database_url and not (current.home.resolve() / "catalog.db").exists():
        return Finding("catalog", "ok", f"{where}: made by the first command")
    try:
        check(engine)
    except CatalogError as error:
        return Finding("catalog", "missing", str(error))
    return Finding("catalog", "ok", where)


def _program(name: str, remedy: str) -> Finding:
    path = _uv() if name == "uv" else shutil.which(name)
    return Finding(name, "ok", path) if path else Finding(name, "missing", f"not found; {remedy}")


def _uv() -> str | None:
    from uv import find_uv_bin

    try:
        return str(find_uv_bin())
    except FileNotFoundError:
        return None


def _sandbox(current: Settings, kind: str) -> Finding:
    """The kind in use must work; the other is optional."""
    why = _attempt(lambda: make_sandboxes(current.model_copy(update={"sandbox": kind})).probe())
    in_use = " (in use)" if kind == current.sandbox else ""
    if why is None:
        return Finding(f"sandbox {kind}", "ok", f"isolates untrusted code{in_use}")
    return Finding(f"sandbox {kind}", "missing" if in_use else "optional", why)


def _build_network(current: Settings) -> Finding:
    """Of source distributions that are built in the namespace sandbox; docker's builds have a network of their own."""
    from swefactory.sandboxes.index_settings import network_settings
    from swefactory.sandboxes.user_network import shared_because

    why = shared_because(network_settings(with_secrets=False).env)
    if why is None:
        return Finding("network of builds", "ok", "their own, without a way to this machine's loopback")
    says = f"builds in the namespace sandbox share this machine's network and reach its loopback: {why}"
    return Finding("network of builds", "optional", says)


def _base_images(current: Settings) -> Finding:
    """Which way the docker sandbox's base images come here."""
    from swefactory.sandboxes.bootstrap import origin

    part = "docker base images"
    try:
        return Finding(part, "ok", origin(make_docker(current).images))
    except InfrastructureError as error:
        return Finding(part, "optional", str(error))


def _attempt(probe: Callable[[], str | None]) -> str | None:
    try:
        return probe()
    except SandboxUnavailable as error:
        return str(error)


def _interpreters(current: Settings) -> Finding:
    try:
        found = sorted(make_sandboxes(current).pythons(), key=lambda v: [int(part) for part in v.split(".")])
    except SandboxUnavailable as error:
        return Finding("interpreters", "missing", str(error))
    if not found:
        return Finding("interpreters", "missing", "none for the sandbox; see SWEFACTORY_INTERPRETERS")
    return Finding("interpreters", "ok", "Python " + ", ".join(found))


def _disk(current: Settings) -> Finding:
    folder = current.home.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    verdict: Verdict = "ok" if free > 5 * 2**30 else "missing"
    budget = f", budget {current.disk_budget / 2**30:.1f} GiB" if current.disk_budget else ", no budget"
    return Finding("disk", verdict, f"{free / 2**30:.0f} GiB free at {folder}{budget}")


def _github(current: Settings) -> Finding:
    if current.github_token.get_secret_value():
        return Finding("GitHub token", "ok", f"given, for {current.github_url}")
    return Finding("GitHub token", "optional", "none; crawling GitHub needs SWEFACTORY_GITHUB_TOKEN")


def _model(current: Settings) -> Finding:
    if current.model_url or current.model_api_key.get_secret_value():
        return Finding("model", "ok", current.model_url or "LiteLLM's own addresses, with a key")
    return Finding(
        "model", "optional", "none; openhands rollouts need SWEFACTORY_MODEL_URL and SWEFACTORY_MODEL_API_KEY"
    )


def _server(name: str, url: str, use: str) -> Finding:
    address = urlsplit(url)
    try:
        with socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379), 2):
            return Finding(name, "ok", f"answers at {address.hostname}:{address.port}")
    except OSError as error:
        return Finding(name, "optional", f"{address.hostname}:{address.port} does not answer ({error.strerror}); {use}")
