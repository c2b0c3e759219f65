"""Does OpenHands solve what its model solves, and nothing else? The model is a script that knows the answers.

    SWEFACTORY_HOME=HOME python -m benchmarks.rollouts.replay [--instances 24] [--seed 1] [-j 2] [--sandbox namespace]

HOME has an SQLite catalog with validated instances. They are chosen in turn from its repositories; for one half of
them the script says the gold patch, for the other something harmless or wrong (`scripts.py`). The scripts are in this
process alone, behind an OpenAI-compatible server on loopback: neither sandbox nor agent is told the gold patch but by
what the model says. The real agent works, its patches are graded, and each instance must end as its script says.

One property: HOME's catalog is not written. All happens in a copy without its queue, in a temporary folder; mirrors,
artifacts and caches are HOME's, through links. Ends with 1 when an instance ends otherwise.
"""

import argparse
import fnmatch
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

from sqlalchemy import Engine
from sqlmodel import col, select

from benchmarks.rollouts.copies import copied, work
from benchmarks.rollouts.scripts import FAILING, SOLVING, Script, statement_of, write_script
from db.engine import session
from db.enums import AgentKind, InstanceStatus
from db.models import AgentConfig, Repository, Rollout, TaskInstance
from swefactory import admin
from swefactory.config import Settings
from swefactory.demo.model_server import MODEL, Call, model_server
from swefactory.protocols import AgentSpec
from swefactory.wiring import make_services

_AGENT = "openhands/replay"
_KEY = "replay-model-api-key"
_UNKNOWN: Call = ("", "finish", {"message": "This script knows nothing about that issue."})


@dataclass(frozen=True)
class Ended:
    """A rollout beside its script."""

    instance_id: str
    script: str
    solves: bool
    exit_status: str
    resolved: bool | None
    is_as_scripted: bool
    n_turns: int
    duration_s: float
    detail: str


# ---------------------------------------------------------------- the choice


def chosen(instances: Mapping[str, str], n: int, seed: str) -> list[str]:
    """`n` instance ids of {id: repository}, in turn from each repository, in an order that `seed` makes."""
    by_repository: dict[str, list[str]] = {}
    for instance_id in sorted(instances, key=lambda name: _order(seed, name)):
        by_repository.setdefault(instances[instance_id], []).append(instance_id)
    in_turn = zip_longest(*(by_repository[name] for name in sorted(by_repository)))
    return [instance_id for turn in in_turn for instance_id in turn if instance_id][:n]


def _order(seed: str, name: str) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def _identified(rows: Sequence[TaskInstance]) -> Iterator[TaskInstance]:
    """Those that the model can tell from the others: by their statement, which is all it is told."""
    statements = [row.problem_statement.strip() for row in rows]
    for row in rows:
        if statements.count(row.problem_statement.strip()) == 1:
            yield row
        else:
            print(f"left out: {row.instance_id}, another instance has its statement", file=sys.stderr)


# ---------------------------------------------------------------- the scripts


def _scripts(settings: Settings, engine: Engine, options: argparse.Namespace) -> dict[str, Script]:
    """A script for each chosen instance, every other of a seeded order one that solves; by their statements."""
    validated = select(TaskInstance, Repository.name).join(Repository)
    with session(engine, writing=False) as db:
        rows = db.exec(validated.where(TaskInstance.status == InstanceStatus.VALIDATED)).all()
        names = {row.instance_id: name for row, name in rows}
        known = {row.instance_id: row for row in _identified([row for row, _ in rows])}
        for row in known.values():
            db.expunge(row)
    wanted = {instance_id: names[instance_id] for instance_id in fnmatch.filter(known, options.only)}
    picked, seed = chosen(wanted, options.instances, options.seed), options.seed
    checkouts = make_services(settings, engine).checkouts
    scripts: dict[str, Script] = {}
    for place, instance_id in enumerate(sorted(picked, key=lambda name: _order(f"solves {seed}", name))):
        kinds = FAILING if place % 2 else SOLVING
        row, repository = known[instance_id], names[instance_id]
        tree = checkouts.tree(repository, checkouts.path_of(repository), row.base_commit)
        with tempfile.TemporaryDirectory() as scratch:
            scripts[instance_id] = write_script(kinds[place // 2 % len(kinds)], row.patch, tree, Path(scratch))
    return {row.instance_id: scripts[row.instance_id] for row in known.values() if row.instance_id in scripts}


# ---------------------------------------------------------------- the run


def _ended(engine: Engine, scripts: Mapping[str, Script]) -> list[Ended]:
    ours = select(TaskInstance.instance_id, Rollout).join(Rollout).join(AgentConfig)
    with session(engine, writing=False) as db:
        found = dict(db.exec(ours.where(col(AgentConfig.name) == _AGENT)).all())
    return [_compared(name, script, found[name]) for name, script in sorted(scripts.items())]


def _compared(name: str, script: Script, rollout: Rollout) -> Ended:
    is_as_scripted = (rollout.exit_status, rollout.resolved) == (script.exit_status, script.solves)
    status = rollout.exit_status.value if rollout.exit_status else "none"
    facts = (rollout.n_turns, rollout.duration_s, rollout.exit_detail)
    return Ended(name, script.kind.value, script.solves, status, rollout.resolved, is_as_scripted, *facts)


def _replayed(options: argparse.Namespace, folder: Path) -> list[Ended]:
    with copied(Settings(), folder, options.sandbox) as (settings, engine):
        scripts = _scripts(settings, engine, options)
        if not scripts:
            sys.exit(f"{settings.catalog_url} has no validated instance {options.only!r}: validate some first")
        by_statement = _statements(engine, scripts)

        def script(messages: Sequence[Mapping[str, object]]) -> Call:
            known = by_statement.get(statement_of(messages))
            n_said = sum(message.get("role") == "assistant" for message in messages)
            return known.calls[min(n_said, len(known.calls) - 1)] if known else _UNKNOWN

        with session(engine) as db:
            admin.add_rollouts(db, AgentSpec(AgentKind.OPENHANDS, _AGENT, model=MODEL), instance_ids=sorted(scripts))
        with model_server(api_key=_KEY, script=script) as url:
            if code := work(settings, url, _KEY, options.jobs):
                print(f"swefactory run ended with {code}", file=sys.stderr)
        return _ended(engine, scripts)


def _statements(engine: Engine, scripts: Mapping[str, Script]) -> dict[str, Script]:
    with session(engine, writing=False) as db:
        rows = db.exec(select(TaskInstance).where(col(TaskInstance.instance_id).in_(scripts)))
        return {row.problem_statement.strip(): scripts[row.instance_id] for row in rows}


# ---------------------------------------------------------------- the table


def _print(found: Sequence[Ended], seed: str) -> None:
    width = max(len(each.instance_id) for each in found)
    print(f"{'instance':{width}}  script    to solve?  exit status   resolved?  turns  seconds")
    for each in found:
        facts = f"{each.script:8}  {_word(each.solves):9}  {each.exit_status:12}  {_word(each.resolved):9}"
        end = "" if each.is_as_scripted else f"  NOT AS SCRIPTED {each.detail[:200]}"
        print(f"{each.instance_id:{width}}  {facts}  {each.n_turns:5}  {each.duration_s:7.1f}{end}")
    solving, failing = ([each for each in found if each.solves is solves] for solves in (True, False))
    n_repositories = len({each.instance_id.rpartition("-")[0] for each in found})
    print(
        f"{len(found)} instances of {n_repositories} repositories, seed {seed}: "
        f"{sum(each.resolved is True for each in solving)} of {len(solving)} scripted to solve are resolved, "
        f"{sum(each.resolved is True for each in failing)} of the {len(failing)} others; "
        f"{sum(not each.is_as_scripted for each in found)} ended otherwise than scripted"
    )


def _word(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "not graded"}[value]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=24, help="at most, in turn from the catalog's repositories")
    parser.add_argument("--only", default="*", help="a pattern of instance ids, such as 'pallets__*'")
    parser.add_argument("--seed", default="1", help="of the choice, and of which half is scripted to solve")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--sandbox", choices=("namespace", "docker"), default="namespace")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave it, to look at the copy")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True)
        found = _replayed(options, options.keep.resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="swefactory-replay-") as name:
            found = _replayed(options, Path(name))
    if options.json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    else:
        _print(found, options.seed)
    return 0 if all(each.is_as_scripted for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
