"""`swefactory metrics`: the catalog's numbers for Prometheus."""

import threading
from typing import Annotated

import typer
from prometheus_client import generate_latest, start_http_server

from swefactory.cli.context import catalog, settings
from swefactory.cli.output import console
from swefactory.errors import InfrastructureError
from swefactory.metrics import registry


def metrics(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where Prometheus asks.")] = 9464,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; no one else's by default.")
    ] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Print them and end.")] = False,
) -> None:
    """Serve the catalog's numbers to Prometheus until Ctrl-C: jobs, ages, rejections, sandbox seconds, quota, cost.

    Examples: `swefactory metrics --once` · `swefactory metrics --port 9464 --host 0.0.0.0`
    """
    with catalog(settings()) as engine:
        numbers = registry(engine)
        if once:
            typer.echo(generate_latest(numbers).decode(), nl=False)
            return
        try:
            server, _ = start_http_server(port, host, numbers)
        except OSError as error:
            raise InfrastructureError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
            ) from error
        console.print(f"http://{host}:{port}/metrics; Ctrl-C ends it")
        try:
            threading.Event().wait()
        finally:
            server.shutdown()
