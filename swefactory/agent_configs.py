"""Agent configurations as rows, named by digest. One property: what can change an agent's doing changes its digest."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from sqlmodel import Session, col, select

from db.enums import AgentKind
from db.models import AgentConfig
from swefactory.agents.agent_specs import completed
from swefactory.errors import UsageError
from swefactory.protocols import AgentSpec

_SHORTEST_PREFIX = 6
_NOT_IN_THE_DIGEST = frozenset(("name", "n_replicas"))
_LATER_FIELDS = frozenset(("max_tokens", "prompts", "tools", "condenser"))  # left out of a digest at their defaults
_DEFAULTS = AgentSpec(AgentKind.NOP, "")


def agent_digest(agent: AgentSpec) -> str:
    """sha256 over everything that can change what the agent does; not over its name."""
    facts = {key: value for key, value in asdict(agent).items() if key not in _NOT_IN_THE_DIGEST}
    for name in _LATER_FIELDS:
        if facts[name] == getattr(_DEFAULTS, name):
            del facts[name]
    return "sha256:" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def add(
    db: Session, agent: AgentSpec, *, redact: Callable[[str], str] = str, rename: bool = False
) -> tuple[AgentConfig, bool]:
    """The row of this configuration, and whether it is new. The same one under another name keeps its first name; with
    `rename` a name that is another's gets the digest behind it. Raises UsageError when the configuration cannot be,
    would store a key, or its name is another's."""
    spec = completed(agent, redact)
    digest = agent_digest(spec)
    if known := db.exec(select(AgentConfig).where(AgentConfig.digest == digest)).first():
        return known, False
    if taken := db.exec(select(AgentConfig).where(AgentConfig.name == spec.name)).first():
        if not rename:
            raise UsageError(
                f"the name {spec.name!r} is that of another agent, {short(taken.digest)}; choose another with --name"
            )
        spec = replace(spec, name=f"{spec.name}@{short(digest)}")
    facts = {**asdict(spec), "kind": spec.kind.value, "tools": list(spec.tools)}
    row = AgentConfig(digest=digest, name=spec.name, kind=spec.kind, model=spec.model, parameters=facts)
    db.add(row)
    db.flush()
    return row, True


def find(db: Session, name: str) -> AgentConfig:
    """The configuration of this name, or of this beginning of a digest. Raises UsageError when there is none."""
    exact = db.exec(select(AgentConfig).where(AgentConfig.name == name).order_by(col(AgentConfig.id))).all()
    rows: Sequence[AgentConfig] = exact or _by_digest(db, name)
    if len(rows) == 1:
        return rows[0]
    if rows:
        raise UsageError(
            f"{name!r} is {len(rows)} agents: {', '.join(short(row.digest) for row in rows)}; name one by digest"
        )
    raise UsageError(f"no agent {name!r} in the catalog; see `swefactory agent list`, or add it: swefactory agent add")


def _by_digest(db: Session, prefix: str) -> Sequence[AgentConfig]:
    digest = f"sha256:{prefix.removeprefix('sha256:')}"
    if len(digest) < len("sha256:") + _SHORTEST_PREFIX:
        return []
    return db.exec(select(AgentConfig).where(col(AgentConfig.digest).startswith(digest, autoescape=True))).all()


def spec_of(config: AgentConfig) -> AgentSpec:
    """The configuration as an agent is made of it."""
    known = {field.name for field in fields(AgentSpec)} - {"kind", "name", "model"}
    facts: dict[str, Any] = {name: value for name, value in config.parameters.items() if name in known}
    if "tools" in facts:
        facts["tools"] = tuple(facts["tools"])
    return AgentSpec(kind=config.kind, name=config.name, model=config.model, **facts)


def short(digest: str) -> str:
    """The beginning of a digest, as listings show it."""
    return digest.removeprefix("sha256:")[:12]
