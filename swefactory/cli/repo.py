"""`swefactory repo`: which repositories are under watch."""

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import func
from sqlmodel import col, select

from db.engine import session
from db.models import PullRequest, Repository, SourceKind
from swefactory import admin
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import console, show
from swefactory.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Repositories under watch.")


@app.command()
def add(
    names: Annotated[list[str] | None, typer.Argument(help="Repositories as owner/name.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Take only the newest N merged PRs that touch tests.")
    ] = None,
    from_file: Annotated[Path | None, typer.Option("--from-file", help="A file with one owner/name a line.")] = None,
    clone: Annotated[
        str | None, typer.Option("--clone", help="Mine this git clone (path or URL) instead of GitHub's API.")
    ] = None,
) -> None:
    """Queue repositories; queuing one again crawls what is new.

    Examples: `swefactory repo add pallets/click --limit 30` ·
    `swefactory repo add --from-file repositories.txt` ·
    `swefactory repo add acme/tool --clone ./tool.git`
    """
    wanted = [*(names or []), *_names_in(from_file)]
    if not wanted:
        raise UsageError("no repository named; write owner/name, for example: swefactory repo add pallets/click")
    for name in wanted:
        admin.check_name(name)
    if clone and len(wanted) > 1:
        raise UsageError("--clone goes with exactly one repository")
    current = settings()
    source = SourceKind.GIT_HISTORY if clone else SourceKind.GITHUB
    with catalog(current) as engine, session(engine) as db:
        for name in wanted:
            queued = admin.add_repository(
                db, name, source=source, clone_url=clone or "", limit=limit, max_attempts=current.max_attempts
            )
            console.print(f"{name}: {'queued' if queued.n_new else 'under watch already; queued what is new'}")
    console.print("next: swefactory run")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the repositories.

    Example: `swefactory repo list --json`
    """
    columns = ["name", "source", "pull_requests", "limit", "stars", "license", "crawled_at"]
    with catalog(settings()) as engine, session(engine) as db:
        owner = col(PullRequest.repository_id)
        counted = select(owner, func.count().label("n")).group_by(owner).subquery()
        statement = (
            select(Repository, func.coalesce(counted.c.n, 0))
            .outerjoin(counted, counted.c.repository_id == Repository.id)
            .order_by(Repository.name)
        )
        rows = [
            [repo.name, repo.source.value, n, repo.pull_request_limit, repo.n_stars, repo.license, repo.crawled_at]
            for repo, n in db.exec(statement)
        ]
    show(columns, rows, as_json=as_json, empty="no repository yet; add one: swefactory repo add owner/name")


def _names_in(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
