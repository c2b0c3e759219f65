"""`swefactory environment`: the environments, and how each was decided. One property: shows only what is stored."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from sqlalchemy import func
from sqlmodel import Session, col, select

from db.engine import session
from db.models import Environment, EnvironmentBuild, TaskInstance
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import show, show_one
from swefactory.environment_disk import users
from swefactory.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Environments: what tests run in, and how it was decided.")
Subject = Annotated[str, typer.Argument(help="An instance id, an environment's number, or the start of its digest.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List environments.

    Examples: `swefactory environment list` · `swefactory environment list --json`
    """
    columns = ["environment", "python", "n_packages", "n_instances", "resolved_as_of", "size_mb", "digest"]
    sizes = (
        select(col(EnvironmentBuild.environment_id), func.max(EnvironmentBuild.size_bytes).label("size_bytes"))
        .group_by(col(EnvironmentBuild.environment_id))
        .subquery()
    )
    statement = (
        select(Environment, sizes.c.size_bytes)
        .outerjoin(sizes, sizes.c.environment_id == col(Environment.id))
        .order_by(col(Environment.id))
    )
    with catalog(settings()) as engine, session(engine) as db:
        n_users = users(db)
        rows = [
            [
                found.id, found.python_version, found.n_packages, n_users.get(found.digest, 0), found.resolved_as_of,
                None if size is None else round(size / 2**20, 1), found.digest.removeprefix("sha256:")[:12],
            ]
            for found, size in db.exec(statement)
        ]  # fmt: skip
    show(columns, rows, as_json=as_json, empty="none yet; queue a repository and run")


@app.command("show")
def show_environment(subject: Subject, as_json: AsJson = False) -> None:
    """Show one environment whole.

    Examples: `swefactory environment show 3` · `swefactory environment show pallets__click-2380`
    """
    with catalog(settings()) as engine, session(engine) as db:
        environment, instance = _found(db, subject)
        if environment is None:
            assert instance is not None
            raise UsageError(f"{instance.instance_id} has no environment; see `environment explain` for what was tried")
        builds = db.exec(select(EnvironmentBuild).where(EnvironmentBuild.environment_id == environment.id)).all()
        facts = environment.model_dump(exclude={"recipe"})
        facts["builds"] = [f"{b.sandbox} {b.locator} {b.size_bytes} bytes in {b.duration_s:.1f} s" for b in builds]
        facts["instances"] = list(
            db.exec(select(TaskInstance.instance_id).where(TaskInstance.environment_id == environment.id))
        )
        facts["builds the modules of"] = list(
            db.exec(select(TaskInstance.instance_id).where(TaskInstance.build_environment_id == environment.id))
        )
    show_one(facts, as_json=as_json)


@app.command("explain")
def explain(subject: Subject, as_json: AsJson = False) -> None:
    """Explain how an environment was decided: each fact with its file and place, and what was tried.

    An instance answers with its own recipe, also when it was rejected; an environment with that of the first instance.

    Examples: `swefactory environment explain pallets__click-2380` · `swefactory environment explain 4f3c0b`
    """
    with catalog(settings()) as engine, session(engine) as db:
        environment, instance = _found(db, subject)
        recipe = (instance.recipe if instance else {}) or (environment.recipe if environment else {})
        if not recipe:
            name = instance.instance_id if instance else subject
            detail = instance.reject_detail if instance else ""
            raise UsageError(
                f"no recipe is stored for {name}{f': {detail}' if detail else '; its job has not run yet'}"
            )
        rejected = instance.reject_detail if instance and instance.reject_reason else ""
        build = _build_environment(db, instance)
    show_one(recipe if as_json else explained(recipe, rejected, build), as_json=as_json)


def _build_environment(db: Session, instance: TaskInstance | None) -> str:
    """What builds the instance's own extension modules: number, digest, Python and packages."""
    if instance is None or instance.build_environment_id is None:
        return ""
    found = db.get_one(Environment, instance.build_environment_id)
    digest = found.digest.removeprefix("sha256:")[:12]
    return f"{found.id} ({digest}): Python {found.python_version}, {found.n_packages} packages"


def _found(db: Session, subject: str) -> tuple[Environment | None, TaskInstance | None]:
    """The environment or the instance that `subject` names; of an instance both. Raises UsageError."""
    instance = db.exec(select(TaskInstance).where(TaskInstance.instance_id == subject)).first()
    if instance is not None:
        return (db.get(Environment, instance.environment_id) if instance.environment_id else None), instance
    if subject.isdecimal() and (numbered := db.get(Environment, int(subject))):
        return numbered, None
    prefix = subject.removeprefix("sha256:")
    if prefix and all(letter in "0123456789abcdef" for letter in prefix):
        found = db.exec(select(Environment).where(col(Environment.digest).startswith(f"sha256:{prefix}"))).all()
        if len(found) == 1:
            return found[0], None
        if found:
            raise UsageError(f"{len(found)} environments have a digest that starts with {prefix}; write more of it")
    raise UsageError(f"no instance and no environment {subject!r}; see `swefactory environment list`")


def explained(recipe: Mapping[str, Any], rejected: str = "", build: str = "") -> dict[str, object]:
    """The recipe as facts to print, each with where it came from; `build` is its build environment."""
    why, origins = recipe.get("why", {}), recipe.get("origins", {})
    rungs = recipe.get("rungs", [])
    used = {line for rung in rungs if not rung["is_fallback"] for line in rung["requirements"]}
    always = [line for line in recipe["requirements"] if line not in used]
    facts: dict[str, object] = {
        "python": f"{recipe['python_version']}: {why.get('python_version', '')}",
        "as of": recipe["as_of"],
        "considered": [f"{c['version']}  {c['origin']}: {c['verdict']}" for c in recipe.get("considered", [])],
        "version": why.get("version", ""),
        "project folder": why.get("folder", ""),
        "source roots": why.get("source_roots", ""),
        "generated files": why.get("generated_files", ""),
        "always": _sourced(always, origins),
    }
    for rung in rungs:
        state = " (left out)" if rung["is_fallback"] else ""
        facts[f"rung {rung['name']}{state}"] = _sourced(rung["requirements"], rung["origins"])
    facts |= {
        "constraints": f"{len(recipe['constraints'])} {why.get('constraints', '')}" if recipe["constraints"] else "",
        "tried": [_attempt(attempt) for attempt in recipe.get("attempts", [])],
        "system packages": _sourced(recipe["system_packages"], origins),
        "extension modules": recipe.get("compiled", ""),
        "built with": _sourced(recipe.get("build_requirements", []), origins),
        "build environment": build,
        "only for builds": _sourced(recipe.get("build_packages", []), origins),
        "the project's test command": why.get("test_command", ""),
        "tests run by": f"{' '.join(recipe.get('test_command', []))}: {why['runner']}" if "runner" in why else "",
        "variables": [
            f"{name}={value}  {origins.get(f'variable {name}', '')}"
            for name, value in sorted(recipe["environment_variables"].items())
        ],
        "failed at": recipe.get("step", ""),
        "its log": recipe.get("log_digest", ""),
        "rejected": rejected,
    }
    return {name: value for name, value in facts.items() if value}


def _sourced(lines: Iterable[str], origins: Mapping[str, str]) -> list[str]:
    return [f"{line}  {origins.get(line, '')}".rstrip() for line in lines]


def _attempt(attempt: Mapping[str, Any]) -> str:
    count = f", {attempt['n_requirements']} new" if attempt["kind"] == "rung" and attempt["worked"] else ""
    detail = " ".join(str(attempt["detail"]).split())[:200]
    return (
        f"{attempt['kind']} {attempt['name']}: {'served' if attempt['worked'] else 'failed'}{count}  {detail}".rstrip()
    )
