"""`swefactory instance`: the task instances."""

from datetime import timedelta
from typing import Annotated

import typer
from sqlmodel import col, select

from db import queries
from db.engine import session
from db.enums import InstanceStatus, Tier
from db.models import Environment, TaskInstance, utc_now
from swefactory import admin
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import console, show, show_one
from swefactory.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Task instances: one pull request and its issues as a problem.")


@app.command("list")
def list_(
    status: Annotated[InstanceStatus | None, typer.Option(help="Only these.")] = None,
    as_json: AsJson = False,
) -> None:
    """List task instances.

    Examples: `swefactory instance list` · `swefactory instance list --status validated --json`
    """
    columns = ["instance_id", "status", "reason", "python", "n_fail_to_pass", "n_pass_to_pass", "validated_at"]
    statement = (
        select(TaskInstance, Environment)
        .outerjoin(Environment, col(TaskInstance.environment_id) == col(Environment.id))
        .order_by(TaskInstance.instance_id)
    )
    if status:
        statement = statement.where(TaskInstance.status == status)
    with catalog(settings()) as engine, session(engine) as db:
        rows = [
            [
                instance.instance_id,
                instance.status.value,
                instance.reject_reason.value if instance.reject_reason else None,
                environment.python_version if environment else None,
                len(instance.fail_to_pass),
                len(instance.pass_to_pass),
                instance.validated_at,
            ]
            for instance, environment in db.exec(statement)
        ]
    show(columns, rows, as_json=as_json, empty="none yet; queue a repository and run")


@app.command()
def revalidate(
    instance_ids: Annotated[list[str] | None, typer.Argument(help="Instance ids.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Every validated instance.")] = False,
    due: Annotated[
        bool, typer.Option("--due", help="Validated ones whose certificate is older than SWEFACTORY_REVALIDATE_DAYS.")
    ] = False,
    tier: Annotated[Tier | None, typer.Option(help="Runs a state: 3, 10 or 30; default SWEFACTORY_TIER.")] = None,
) -> None:
    """Queue another validation; `swefactory query drift` then shows what changed.

    Examples: `swefactory instance revalidate pallets__click-2380 --tier gold` ·
    `swefactory instance revalidate --all` · `swefactory instance revalidate --due`
    """
    if bool(instance_ids) + every + due != 1:
        raise UsageError("say which: instance ids, or --all, or --due")
    current = settings()
    if due and not current.revalidate_days:
        raise UsageError("nothing is ever due; set SWEFACTORY_REVALIDATE_DAYS, for example to 90")
    with catalog(current) as engine:
        older = utc_now() - timedelta(days=current.revalidate_days)
        parameters = {"before": f"{older:%Y-%m-%d %H:%M:%S}"}
        chosen = [str(row[0]) for row in queries.run(engine, "stale_certificates", parameters)[1]] if due else None
        with session(engine) as db:
            queued = admin.revalidate(
                db, None if every else (instance_ids or chosen or ()), tier=tier, max_attempts=current.max_attempts
            )
    console.print(f"{queued.n_jobs} validations queued" + ("; next: swefactory run" if queued.n_jobs else ""))


@app.command("show")
def show_instance(instance_id: str, as_json: AsJson = False) -> None:
    """Show one task instance whole.

    Example: `swefactory instance show pallets__click-2380`
    """
    with catalog(settings()) as engine, session(engine) as db:
        instance = db.exec(select(TaskInstance).where(TaskInstance.instance_id == instance_id)).first()
        if instance is None:
            raise UsageError(f"no task instance {instance_id!r} in the catalog; see `swefactory instance list`")
        facts = instance.model_dump(exclude={"id", "repository_id", "pull_request_id", "environment_id"})
    show_one(facts, as_json=as_json)
