"""`swefactory images`: base images for the docker sandbox."""

import typer

app = typer.Typer(no_args_is_help=True, help="Base images for the docker sandbox.")
