"""`swefactory rollout`: agents at work on task instances."""

from typing import Annotated

import typer
from sqlmodel import col, select

from db.engine import session
from db.models import AgentConfig, AgentKind, Rollout, TaskInstance
from swefactory import admin, agent_configs
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.instance_choice import INSTANCES_HELP, chosen_instances
from swefactory.cli.output import console, show, show_one
from swefactory.errors import UsageError
from swefactory.protocols import AgentSpec

app = typer.Typer(no_args_is_help=True, help="Rollouts: one agent run on one task instance.")

MAX_TURNS = 100


@app.command()
def add(
    agent: Annotated[
        str, typer.Option("--agent", "-a", help="oracle, nop, an agent's name or digest, or openhands with --model.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="As LiteLLM names it, for openhands.")] = "",
    instances: Annotated[
        list[str] | None,
        typer.Option("--instance", "-i", "--instances", help=f"{INSTANCES_HELP} (repeatable); default all validated."),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option("-k", "--replicas", min=1, help="Rollouts an instance; default as the agent says, or 1."),
    ] = None,
    max_turns: Annotated[int, typer.Option(min=1, max=MAX_TURNS, help="Model calls at most.")] = MAX_TURNS,
    max_cost: Annotated[float | None, typer.Option(help="US dollars at most, a rollout.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds at most, a rollout.")] = 3600,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
) -> None:
    """Queue rollouts; queuing the same twice is queuing once. Limits and temperature are for an agent made by --model.

    Examples: `swefactory rollout add --agent oracle` · `swefactory rollout add --agent qwen -i 'pallets__*' -k 4` ·
    `swefactory rollout add --agent openhands --model hosted_vllm/Qwen/Qwen3-Coder-30B-A3B-Instruct -k 4`
    """
    current = settings()
    with catalog(current) as engine, session(engine) as db:
        if agent in list(AgentKind):
            given = _spec(AgentKind(agent), model, max_turns, max_cost, timeout, temperature)
            config, _ = agent_configs.add(db, given, redact=current.redact, rename=True)
        else:
            config = agent_configs.find(db, agent)
        spec = agent_configs.spec_of(config)
        queued = admin.add_rollouts(
            db,
            spec,
            instance_ids=chosen_instances(engine, db, instances or ()),
            replicas=replicas or spec.n_replicas,
            max_attempts=current.max_attempts,
        )
    console.print(f"{spec.name}: {queued.n_new} rollouts queued" + ("; next: swefactory run" if queued.n_new else ""))


def _spec(
    agent: AgentKind, model: str, max_turns: int, max_cost: float | None, timeout_s: float, temperature: float | None
) -> AgentSpec:
    if agent is not AgentKind.OPENHANDS:
        return AgentSpec(kind=agent, name=agent.value)
    if not model:
        raise UsageError("openhands needs a model: add --model, named as LiteLLM names it, e.g. openai/gpt-5-mini")
    return AgentSpec(
        kind=agent,
        name=f"openhands/{model}",
        model=model,
        max_turns=max_turns,
        max_cost_usd=max_cost,
        timeout_s=timeout_s,
        parameters={} if temperature is None else {"temperature": temperature},
    )


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List rollouts.

    Example: `swefactory rollout list`
    """
    columns = [
        "id",
        "instance_id",
        "agent",
        "replica",
        "exit_status",
        "resolved",
        "suspicious",
        "n_turns",
        "cost_usd",
        "duration_s",
    ]
    statement = (
        select(Rollout, TaskInstance, AgentConfig)
        .join(TaskInstance, col(Rollout.task_instance_id) == col(TaskInstance.id))
        .join(AgentConfig, col(Rollout.agent_config_id) == col(AgentConfig.id))
        .order_by(TaskInstance.instance_id, AgentConfig.name, col(Rollout.replica))
    )
    with catalog(settings()) as engine, session(engine) as db:
        rows = [
            [
                rollout.id,
                instance.instance_id,
                config.name,
                rollout.replica,
                rollout.exit_status.value if rollout.exit_status else None,
                rollout.resolved,
                " ".join(rollout.suspicious),
                rollout.n_turns,
                rollout.cost_usd,
                rollout.duration_s,
            ]
            for rollout, instance, config in db.exec(statement)
        ]
    show(columns, rows, as_json=as_json, empty="none yet; queue some: swefactory rollout add --agent oracle")


@app.command("show")
def show_rollout(rollout_id: int, as_json: AsJson = False) -> None:
    """Show one rollout whole.

    Example: `swefactory rollout show 3`
    """
    with catalog(settings()) as engine, session(engine) as db:
        rollout = db.get(Rollout, rollout_id)
        if rollout is None:
            raise UsageError(f"no rollout {rollout_id} in the catalog; see `swefactory rollout list`")
        instance = db.get(TaskInstance, rollout.task_instance_id)
        config = db.get(AgentConfig, rollout.agent_config_id)
        assert instance is not None
        assert config is not None
        facts = {"instance_id": instance.instance_id, "agent": config.name}
        facts |= rollout.model_dump(exclude={"task_instance_id", "agent_config_id"})
    show_one(facts, as_json=as_json)
