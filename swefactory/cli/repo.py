"""`swefactory repo`: which repositories are under watch."""

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import func
from sqlmodel import col, select

from db.engine import session
from db.enums import SourceKind
from db.models import Crawl, PullRequest, Repository
from swefactory import admin
from swefactory.cli import discover
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import console, show
from swefactory.errors import UsageError
from swefactory.repository_names import name_of, names_in

app = typer.Typer(no_args_is_help=True, help="Repositories under watch.")
app.command("discover")(discover.discover)


@app.command()
def add(
    names: Annotated[list[str] | None, typer.Argument(help="Repositories as owner/name or by their address.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Take only the newest N merged PRs that touch tests.")
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from-file", help="A file with one owner/name or address a line.")
    ] = None,
    clone: Annotated[
        str | None, typer.Option("--clone", help="Mine this git clone (path or URL) instead of GitHub's API.")
    ] = None,
) -> None:
    """Queue repositories; queuing one again crawls what is new.

    Examples: `swefactory repo add pallets/click --limit 30` ·
    `swefactory repo add --from-file repositories.txt` ·
    `swefactory repo add acme/tool --clone ./tool.git`
    """
    wanted = list(dict.fromkeys([*map(name_of, names or []), *_names_in(from_file)]))
    if not wanted:
        raise UsageError("no repository named; write owner/name, for example: swefactory repo add pallets/click")
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
    columns = ["name", "sources", "pull_requests", "limit", "stars", "license", "language", "pushed_at", "crawled_at"]
    with catalog(settings()) as engine, session(engine) as db:
        owner = col(PullRequest.repository_id)
        counted = select(owner, func.count().label("n")).group_by(owner).subquery()
        statement = (
            select(Repository, func.coalesce(counted.c.n, 0))
            .outerjoin(counted, counted.c.repository_id == Repository.id)
            .order_by(Repository.name)
        )
        crawls: dict[int | None, list[Crawl]] = {}
        for crawl in db.exec(select(Crawl).order_by(Crawl.source)):
            crawls.setdefault(crawl.repository_id, []).append(crawl)
        rows = [_row(repo, n, crawls.get(repo.id, [])) for repo, n in db.exec(statement)]
    show(columns, rows, as_json=as_json, empty="no repository yet; add one: swefactory repo add owner/name")


def _row(repo: Repository, n: int, crawls: list[Crawl]) -> list[object]:
    sources = ", ".join(crawl.source.value for crawl in crawls)
    limits = [crawl.pull_request_limit for crawl in crawls if crawl.pull_request_limit]
    crawled_at = max((crawl.crawled_at for crawl in crawls if crawl.crawled_at), default=None)
    facts = [repo.n_stars, repo.license, repo.language, repo.pushed_at, crawled_at]
    return [repo.name, sources, n, max(limits, default=None), *facts]


def _names_in(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return names_in(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', '') or 'it is no UTF-8 text'}") from error
