"""`swefactory rollout`: agents at work on task instances."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from sqlmodel import col, select

from db import queries
from db.engine import session
from db.enums import AgentKind
from db.models import AgentConfig, Rollout, TaskInstance
from swefactory import admin, agent_configs
from swefactory.cli import choice
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.instance_choice import INSTANCES_HELP, chosen_instances
from swefactory.cli.output import console, show, show_one
from swefactory.errors import UsageError
from swefactory.pass_rates import Band, Tries, bands, mean_pass_at_k
from swefactory.protocols import AgentSpec

app = typer.Typer(no_args_is_help=True, help="Rollouts: one agent run on one task instance.")
app.command("score")(choice.score)
app.command("best-of-n")(choice.best_of_n)
app.command("choose")(choice.choose)

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
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="A name for rollouts that share a budget.")] = "",
    budget: Annotated[float | None, typer.Option(help="US dollars at most, the whole campaign.")] = None,
    hours: Annotated[float | None, typer.Option(help="Hours at most from its first start, the whole campaign.")] = None,
) -> None:
    """Queue rollouts; queuing the same twice is queuing once. Limits and temperature are for an agent made by --model.

    A campaign whose budget is used up stops: no call of the model begins after that, what waits ends as cancelled. Say
    more with the same --campaign and the same command queues those again.

    Examples: `swefactory rollout add --agent oracle` · `swefactory rollout add --agent qwen -i 'pallets__*' -k 4` ·
    `swefactory rollout add --agent openhands --model hosted_vllm/Qwen/Qwen3-Coder-30B-A3B-Instruct -k 4`
    """
    if not campaign and (budget is not None or hours is not None):
        raise UsageError("a budget is a campaign's: name it with --campaign")
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
            campaign=admin.CampaignSpec(campaign, budget, None if hours is None else hours * 3600)
            if campaign
            else None,
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


@app.command()
def cancel(
    rollout_ids: Annotated[list[int] | None, typer.Argument(help="As `rollout list` names them.")] = None,
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="Every one of this campaign.")] = "",
) -> None:
    """Call rollouts off; one at work stops before its next call of the model, and keeps what it did.

    Examples: `swefactory rollout cancel 3 4` · `swefactory rollout cancel --campaign pilot`
    """
    if bool(rollout_ids) is bool(campaign):
        raise UsageError("name the rollouts to cancel, or a campaign")
    with catalog(settings()) as engine, session(engine) as db:
        n_cancelled = admin.cancel_rollouts(db, rollout_ids=rollout_ids or (), campaign=campaign)
    console.print(f"{n_cancelled} rollouts called off")


@app.command()
def rates(
    ks: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="pass@k for this k (repeatable); default 1.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how often each agent resolves: pass@k by the unbiased estimator, and instances that none, some or all solve.

    Rollouts that ended in infrastructure_error, model_error or cancelled, and suspicious ones, count for nothing.

    Example: `swefactory rollout rates -k 1 -k 4`
    """
    wanted = sorted(set(ks or [1]))
    with catalog(settings()) as engine:
        _, found = queries.run(engine, "tries")
    by_agent: dict[tuple[str, str], dict[str, Tries]] = {}
    for agent, model, instance_id, n, n_solved in found:
        tries = Tries(int(str(n)), int(str(n_solved)))
        by_agent.setdefault((str(agent), str(model)), {})[str(instance_id)] = tries
    columns = ["agent", "model", "instances", "rollouts", *(f"pass@{k}" for k in wanted), *(f"{b}_solve" for b in Band)]
    rows = [[*who, *_rates(tries, wanted)] for who, tries in by_agent.items()]
    show(columns, rows, as_json=as_json, empty="no rollout is graded yet")


def _rates(tries: Mapping[str, Tries], ks: Sequence[int]) -> list[object]:
    found = list(bands(tries).values())
    passed = [mean_pass_at_k(tries.values(), k)[0] for k in ks]
    return [len(tries), sum(each.n for each in tries.values()), *passed, *(found.count(each) for each in Band)]


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
