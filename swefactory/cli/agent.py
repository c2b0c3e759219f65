"""`swefactory agent`: who solves tasks, as configurations named by their digest."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import func
from sqlmodel import col, select

from db.engine import session
from db.enums import AgentKind
from db.models import AgentConfig, Rollout
from swefactory import agent_configs
from swefactory.agents.agent_specs import CONDENSER, TOOLS
from swefactory.agents.prompts import PROMPTS
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import console, show, show_one
from swefactory.errors import UsageError
from swefactory.protocols import AgentSpec

app = typer.Typer(no_args_is_help=True, help="Agents: who solves tasks, with which model, prompts, tools and limits.")

MAX_TURNS = 100


@app.command()
def add(
    model: Annotated[str, typer.Option("--model", "-m", help="As LiteLLM or your server names it.")],
    name: Annotated[str, typer.Option("--name", "-n", help="What to call it; default openhands/MODEL.")] = "",
    parameters: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="NAME=JSON for LiteLLM, e.g. temperature=0.7 (repeatable)."),
    ] = None,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help=f"NAME=FILE, NAME of {', '.join(PROMPTS)} (repeatable).")
    ] = None,
    tools: Annotated[
        list[str] | None, typer.Option("--tool", help=f"Of {', '.join(TOOLS)} (repeatable); default both.")
    ] = None,
    condenser: Annotated[
        list[str] | None,
        typer.Option(help="max_size=N or keep_first=N: summarise a history of more events (repeatable); default off."),
    ] = None,
    max_turns: Annotated[int, typer.Option(min=1, max=MAX_TURNS, help="Model calls at most.")] = MAX_TURNS,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens at most, prompts and answers together.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="US dollars at most.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds at most.")] = 3600,
    command_timeout: Annotated[float, typer.Option(help="Seconds at most, a command.")] = 300,
    replicas: Annotated[int, typer.Option("-k", "--replicas", min=1, help="Rollouts an instance, by default.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Add an OpenHands agent; all limits are those of one rollout. Adding the same twice is adding it once.

    Keys are no part of it: they come from SWEFACTORY_MODEL_API_KEY or SWEFACTORY_SECRETS_DIR when it runs.

    Examples: `swefactory agent add --model hosted_vllm/Qwen/Qwen3-Coder-30B-A3B-Instruct -p temperature=0.7 -k 4` ·
    `swefactory agent add -n terse -m openai/gpt-5-mini --prompt system=terse.txt --max-tokens 400000 --max-cost 0.5`
    """
    spec = AgentSpec(
        kind=AgentKind.OPENHANDS,
        name=name or f"openhands/{model}",
        model=model,
        max_turns=max_turns,
        max_cost_usd=max_cost,
        timeout_s=timeout,
        command_timeout_s=command_timeout,
        parameters=_values("--param", parameters),
        max_tokens=max_tokens,
        prompts={name: _text(path) for name, path in _pairs("--prompt", prompts)},
        tools=tuple(dict.fromkeys(tools)) if tools else TOOLS,
        condenser=CONDENSER | _values("--condenser", condenser) if condenser else {},
        n_replicas=replicas,
    )
    current = settings()
    with catalog(current) as engine, session(engine) as db:
        row, is_new = agent_configs.add(db, spec, redact=current.redact)
        facts = {"agent": row.name, "digest": row.digest, "is_new": is_new}
    if as_json:
        show_one(facts, as_json=True)
        return
    said = "added" if is_new else "was there already"
    console.print(f"agent {facts['agent']} {said}; next: swefactory rollout add --agent {facts['agent']}", markup=False)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List agents, and how many rollouts each has.

    Example: `swefactory agent list`
    """
    columns = ["agent", "digest", "kind", "model", "max_turns", "max_tokens", "max_cost_usd", "timeout_s", "rollouts"]
    counted = select(col(Rollout.agent_config_id), func.count()).group_by(col(Rollout.agent_config_id))
    with catalog(settings()) as engine, session(engine) as db:
        n_rollouts = dict(db.exec(counted).all())
        rows = []
        for row in db.exec(select(AgentConfig).order_by(AgentConfig.name, col(AgentConfig.id))):
            limits = [row.parameters.get(name) for name in columns[4:8]]
            digest = agent_configs.short(row.digest)
            rows.append([row.name, digest, row.kind.value, row.model, *limits, n_rollouts.get(row.id or 0, 0)])
    show(columns, rows, as_json=as_json, empty="none yet; add one: swefactory agent add --model MODEL")


@app.command("show")
def show_agent(
    name: Annotated[str, typer.Argument(help="Its name, or the beginning of its digest.")], as_json: AsJson = False
) -> None:
    """Show one agent whole, its prompts included.

    Example: `swefactory agent show openhands/gpt-5-mini`
    """
    with catalog(settings()) as engine, session(engine) as db:
        row = agent_configs.find(db, name)
        prompts = row.parameters.get("prompts", {})
        facts = {"agent": row.name, "digest": row.digest, "created_at": row.created_at}
        facts |= {key: value for key, value in row.parameters.items() if key not in ("name", "prompts")}
    if as_json:
        show_one(facts | {"prompts": prompts}, as_json=True)
    else:
        show_one(facts | {f"prompt {key}": f"\n{text}" for key, text in prompts.items()}, as_json=False)


def _values(option: str, given: list[str] | None) -> dict[str, Any]:
    """NAME=JSON; what is no JSON is a text."""
    found: dict[str, Any] = {}
    for name, text in _pairs(option, given):
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
    return found


def _pairs(option: str, given: list[str] | None) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in given or ()]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise UsageError(f"{option} {wrong[0]!r} has no '='; write NAME=VALUE")
    return [(name, value) for name, _, value in pairs]


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the prompt file {path} cannot be read: {error}") from error
