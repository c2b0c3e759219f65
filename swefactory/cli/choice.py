"""`swefactory rollout score|best-of-n|choose`: the choice among several rollouts of one instance."""

from collections.abc import Sequence
from typing import Annotated

import typer
from sqlalchemy import Engine
from sqlmodel import Session

from db.engine import session
from swefactory import agent_configs, rollout_choices
from swefactory.choosing import Order, best, curve
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.instance_choice import INSTANCES_HELP, chosen_instances
from swefactory.cli.output import console, errors, show
from swefactory.errors import UsageError
from swefactory.rollout_choices import Tries

_AGENTS = typer.Option("--agent", "-a", help="Its name or digest (repeatable); default all.")
_INSTANCES = typer.Option("--instance", "-i", "--instances", help=f"{INSTANCES_HELP} (repeatable); default all.")
_ORDERS = typer.Option(
    "--by", help="Critics, ',' between them: each breaks the ties of those before (repeatable); default each, and all."
)


def score(
    agents: Annotated[list[str] | None, _AGENTS] = None,
    instances: Annotated[list[str] | None, _INSTANCES] = None,
    critics: Annotated[
        list[str] | None, typer.Option("--critic", help="judge:MODEL or reward:MODEL (repeatable).")
    ] = None,
    tests: Annotated[
        bool, typer.Option(help="By PASS_TO_PASS on the base commit's own tests, and by tests the agents wrote.")
    ] = True,
) -> None:
    """Queue scores of ended rollouts, to choose among them; none of them knows FAIL_TO_PASS, test_patch or gold patch.

    A judge is asked through LiteLLM, or at SWEFACTORY_JUDGE_URL with SWEFACTORY_JUDGE_API_KEY; a reward model at
    SWEFACTORY_REWARD_URL with SWEFACTORY_REWARD_API_KEY. Asking twice is asking once.

    Examples: `swefactory rollout score` · `swefactory rollout score -a qwen --critic judge:openai/gpt-5-mini` ·
    `swefactory rollout score --no-tests --critic reward:critic-32b`
    """
    wanted = [*(rollout_choices.BY_TESTS if tests else ()), *dict.fromkeys(critics or ())]
    if not wanted:
        raise UsageError("nothing is asked for: leave out --no-tests, or name a critic with --critic")
    current = settings()
    with catalog(current) as engine, session(engine) as db:
        n_new = rollout_choices.ask(
            db, wanted,
            agents=_agent_ids(db, agents), instance_ids=chosen_instances(engine, db, instances or ()),
            max_attempts=current.max_attempts,
        )  # fmt: skip
    console.print(f"{n_new} scores queued" + ("; next: swefactory run" if n_new else ""))


def best_of_n(
    agents: Annotated[list[str] | None, _AGENTS] = None,
    instances: Annotated[list[str] | None, _INSTANCES] = None,
    by: Annotated[list[str] | None, _ORDERS] = None,
    as_json: AsJson = False,
) -> None:
    """Show the share of instances resolved by the best of n tries, for each n: by chance, by critics, and at most.

    Each value is what n of the tries would give, over all choices of n; `oracle` is pass@n. Instances of which a try is
    not graded, or not scored by every critic in question, are left out and counted.

    Examples: `swefactory rollout best-of-n` · `swefactory rollout best-of-n --by pass_to_pass,reproduction --json`
    """
    found = _found(agents, instances)
    orders = _orders(found, by)
    rows: list[list[object]] = []
    n_left_out = 0
    for agent in dict.fromkeys(each.agent for each in found):
        mine = [each for each in found if each.agent == agent]
        whole = [each.tries for each in mine if each.is_graded and each.critics.issuperset(_named(orders))]
        n_left_out += len(mine) - len(whole)
        for point in curve(whole, orders):
            chosen = [point.chosen[order] for order in orders]
            rows.append([agent, point.n, point.n_instances, point.random, *chosen, point.oracle])
    columns = ["agent", "n", "instances", "random", *(",".join(order) for order in orders), "oracle"]
    show(columns, rows, as_json=as_json, empty="nothing is scored yet; swefactory rollout score, then swefactory run")
    if n_left_out:
        errors.print(f"{n_left_out} instances are left out: not every try is graded and scored; see `rollout score`")


def choose(
    agents: Annotated[list[str] | None, _AGENTS] = None,
    instances: Annotated[list[str] | None, _INSTANCES] = None,
    by: Annotated[
        str, typer.Option("--by", help="Critics, ',' between them; default all that scored, tests first.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Choose one rollout of each agent for each instance, by its scores alone: whether it resolved is not looked at.

    Examples: `swefactory rollout choose` · `swefactory rollout choose --by pass_to_pass,judge:openai/gpt-5-mini --json`
    """
    found = _found(agents, instances)
    order = _orders(found, [by] if by else [])[-1:]
    rows: list[list[object]] = []
    for each in found:
        if order and each.critics.issuperset(order[0]):
            rollout = each.rollouts[best(each.tries, order[0])]
            rows.append([each.instance_id, each.agent, rollout.id, rollout.replica, len(each.tries)])
    columns = ["instance_id", "agent", "rollout_id", "replica", "n_tries"]
    show(columns, rows, as_json=as_json, empty="nothing is scored yet; swefactory rollout score, then swefactory run")


def _found(agents: list[str] | None, instances: list[str] | None) -> list[Tries]:
    with catalog(settings()) as engine, session(engine) as db:
        return _tries(engine, db, agents, instances)


def _tries(engine: Engine, db: Session, agents: list[str] | None, instances: list[str] | None) -> list[Tries]:
    ids = chosen_instances(engine, db, instances or ())
    found = rollout_choices.tries(db, agents=_agent_ids(db, agents), instance_ids=ids)
    db.expunge_all()
    return found


def _agent_ids(db: Session, names: list[str] | None) -> list[int]:
    return [agent_configs.find(db, name).id or 0 for name in names or ()]


def _orders(found: Sequence[Tries], by: Sequence[str] | None) -> list[Order]:
    known = {critic for each in found for critic in each.critics}
    return rollout_choices.orders(by or (), known)


def _named(orders: Sequence[Order]) -> set[str]:
    return {critic for order in orders for critic in order}
