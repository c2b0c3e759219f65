"""`swefactory demo`: the whole chain on a repository that we generate, through the same client as the real GitHub.

One property: running it twice changes nothing the second time, and it says so.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine, func
from sqlmodel import SQLModel, col, select

from db import queries
from db.engine import session
from db.enums import AgentKind, JobState, StageName
from db.models import AgentConfig, Job, PullRequest, Rollout, TaskInstance
from swefactory import admin
from swefactory.cli import export
from swefactory.cli.context import catalog
from swefactory.cli.output import console, progress, show
from swefactory.config import Settings
from swefactory.demo.history import DemoHistory
from swefactory.demo.servers import DemoServers, demo_servers
from swefactory.errors import EXIT_FINDINGS, InfrastructureError
from swefactory.pipeline import run_embedded
from swefactory.protocols import AgentSpec

_BUILT_IN = (AgentKind.ORACLE, AgentKind.NOP)
_SOLVED, _FAILED = 2, 7  # the pull requests on which the scripted model succeeds and fails


def demo(
    home: Annotated[Path, typer.Option(help="Where the demo's catalog and files live.")] = Path(".swefactory/demo"),
    n_processes: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Work in N processes.")] = 2,
    sandbox: Annotated[str, typer.Option(help="namespace or docker.")] = "namespace",
) -> None:
    """Run the whole chain on a sample repository: SQLite, this process, no token, no GitHub, no model.

    Example: `swefactory demo`
    """
    with demo_servers(home) as servers:
        current = _settings(home, sandbox, servers)
        with catalog(current) as engine:
            before = _rows(engine)
            _work(current, engine, servers, n_processes)
            paths = export.write_all(current, engine, home / "exports")
            again = before == _rows(engine)
            _report(engine, paths, again=again)
            wrong = list(surprises(engine, servers.history))
    _next(home, servers)
    for line in wrong:
        console.print(f"[red]not as expected[/] {line}")
    if wrong:
        raise typer.Exit(EXIT_FINDINGS)


def _settings(home: Path, sandbox: str, servers: DemoServers) -> Settings:
    """Embedded defaults and the demo's own servers, whatever the environment says."""
    return Settings(
        home=home,
        database_url="",
        sandbox=sandbox,
        github_url=servers.github_url,
        github_token=servers.github_token,
        model_url=servers.model_url,
        model_api_key=servers.model_api_key,
    )


def _work(current: Settings, engine: Engine, servers: DemoServers, n_processes: int) -> None:
    console.print(f"sample repository {servers.history.name}, served at {servers.github_url}")
    with session(engine) as db:
        admin.add_repository(db, servers.history.name)
    _run(current, engine, n_processes)
    with session(engine) as db:
        for kind in _BUILT_IN:
            admin.add_rollouts(db, AgentSpec(kind=kind, name=kind.value))
        scripted = AgentSpec(kind=AgentKind.OPENHANDS, name="openhands/scripted", model=servers.model, max_turns=30)
        admin.add_rollouts(db, scripted, instance_ids=_scripted(servers))
    _run(current, engine, n_processes)


def _run(current: Settings, engine: Engine, n_processes: int) -> None:
    with progress(engine):
        summary = run_embedded(current, engine, n_processes=n_processes)
    if summary.n_unfinished or _n_dead(engine):
        columns, rows = queries.run(engine, "dead")
        show(columns, rows, as_json=False, title="dead jobs")
        raise InfrastructureError(
            f"the demo is not done: {summary.n_unfinished} jobs wait; see above, then run it again"
        )


def _scripted(servers: DemoServers) -> list[str]:
    return [servers.history.instance_id(number) for number in (_SOLVED, _FAILED)]


def _n_dead(engine: Engine) -> int:
    with session(engine) as db:
        return db.exec(select(func.count()).select_from(Job).where(Job.state == JobState.DEAD)).one()


def _rows(engine: Engine) -> dict[str, int]:
    """How many rows each table has: what a second run must leave as it is."""
    with session(engine) as db:
        return {
            name: db.connection().execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in SQLModel.metadata.tables.items()
        }


def _report(engine: Engine, exports: list[Path], *, again: bool) -> None:
    for name in ("funnel", "rejections", "rollouts"):
        columns, rows = queries.run(engine, name)
        show(columns, rows, as_json=False, title=f"\n{name}")
    console.print("\n[bold]exports[/]")
    for path in exports:
        n_rows = sum(1 for _ in (path / f"{path.name}.jsonl").open("rb"))
        console.print(f"{path}/{path.name}.jsonl: {n_rows} rows", soft_wrap=True)
    if again:
        console.print("\nNothing was left to do: this demo stood already, and not a row was added.")


def surprises(engine: Engine, history: DemoHistory) -> Iterator[str]:
    """Each pull request whose fate is not the one its history was written for, and each rollout likewise."""
    with session(engine) as db:
        fates = {number: _fate(job, instance) for number, job, instance in db.exec(_FATES)}
        resolved = {(name, config.kind): rollout.resolved for name, config, rollout in db.exec(_RESOLVED)}
    for pull_request in history.pull_requests:
        found = fates.get(pull_request.number, "not crawled")
        if found != pull_request.fate:
            yield f"pull request {pull_request.number}: {found} instead of {pull_request.fate}"
    for (name, kind), held in resolved.items():
        expected = kind is AgentKind.ORACLE or name == history.instance_id(_SOLVED)
        if kind is AgentKind.NOP:
            expected = False
        if held is not expected:
            yield f"{kind.value} on {name}: resolved is {held} instead of {expected}"


_FATES = (
    select(PullRequest.number, Job, TaskInstance)
    .join(Job, (col(Job.subject_id) == col(PullRequest.id)) & (col(Job.stage) == StageName.CANDIDATE))
    .outerjoin(TaskInstance, col(TaskInstance.pull_request_id) == col(PullRequest.id))
)
_RESOLVED = (
    select(TaskInstance.instance_id, AgentConfig, Rollout)
    .join(Rollout, col(Rollout.task_instance_id) == col(TaskInstance.id))
    .join(AgentConfig, col(Rollout.agent_config_id) == col(AgentConfig.id))
)


def _fate(job: Job, instance: TaskInstance | None) -> str:
    """ "validated", the reason of the rejection, or the state it is stuck in."""
    if job.reason:
        return job.reason.value
    if instance is None:
        return job.state.value
    return instance.reject_reason.value if instance.reject_reason else instance.status.value


def _next(home: Path, servers: DemoServers) -> None:
    command = f"SWEFACTORY_HOME={home} {Path(sys.argv[0])}"
    console.print("\n[bold]next[/]")
    console.print(f"{command} instance show {servers.history.instance_id(_SOLVED)}", soft_wrap=True)
    console.print(f"{command} query rejected", soft_wrap=True)
    console.print(f"{command} rollout list", soft_wrap=True)
