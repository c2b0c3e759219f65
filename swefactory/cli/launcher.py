"""`swefactory launcher`: the one process of a cluster's machine that reaches its docker engine."""

import contextlib
from typing import Annotated

import typer

from swefactory.cli.context import settings
from swefactory.cli.output import console
from swefactory.config import Settings
from swefactory.errors import InfrastructureError, UsageError
from swefactory.image_files import load_pins
from swefactory.sandbox_protocols import Limits


def launcher(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where workers ask.")] = 2390,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; no one else's by default.")
    ] = "127.0.0.1",
) -> None:
    """Let workers build, run, copy to, kill and prune what carries our label on this machine's docker, nothing else.

    They set SWEFACTORY_LAUNCHER_URL=http://HOST:PORT and share SWEFACTORY_LAUNCHER_TOKEN with it, best as a file in
    SWEFACTORY_SECRETS_DIR. Limits of sandboxes are those of its own settings.

    Examples: `swefactory launcher` · `swefactory launcher --host 0.0.0.0 --port 2390`
    """
    from swefactory.sandboxes.docker_engine import Engine
    from swefactory.sandboxes.docker_launcher import LauncherServer
    from swefactory.sandboxes.docker_launcher_orders import LauncherRules

    current = settings()
    if current.launcher_url:
        raise UsageError("SWEFACTORY_LAUNCHER_URL is for the launcher's users; unset it for the launcher itself")
    rules = LauncherRules(
        token=current.launcher_token.get_secret_value(),
        maximum=_limits(current),
        roots=_roots(current),
        registry=current.image_registry,
    )
    try:
        server = LauncherServer((host, port), Engine(current.docker_host), _socket(current.docker_host), rules)
    except OSError as error:
        raise InfrastructureError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    console.print(f"http://{host}:{port}; Ctrl-C ends it")
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


def _limits(current: Settings) -> Limits:
    return Limits(
        memory_bytes=current.sandbox_memory_bytes,
        n_processes=current.sandbox_processes,
        n_cpus=current.sandbox_cpus,
        file_bytes=max(Limits().file_bytes, current.sandbox_disk_bytes),
        disk_bytes=current.sandbox_disk_bytes,
    )


def _roots(current: Settings) -> tuple[str, ...]:
    """What builds may begin with besides images of ours."""
    if "{version}" in current.docker_base_image:
        return tuple(current.docker_base_image.format(version=each) for each in load_pins().registry_versions)
    return (current.docker_base_image,) if current.docker_base_image else ()


def _socket(docker_host: str) -> str:
    if docker_host and not docker_host.startswith("unix://"):
        raise UsageError(f"the launcher serves an engine's socket on this machine, not {docker_host}")
    return docker_host.removeprefix("unix://") or "/var/run/docker.sock"
