"""Agents as configurations: named by what they do, found again, and never with a key in them."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from db.engine import session
from db.enums import AgentKind
from db.models import AgentConfig
from swefactory import agent_configs
from swefactory.agents.prompts import prompt_text
from swefactory.config import Settings
from swefactory.errors import UsageError
from swefactory.protocols import AgentSpec
from tests.test_cli import run

KEY = "sk-planted-0123456789"
SPEC = AgentSpec(AgentKind.OPENHANDS, "mine", model="m")


def test_what_changes_the_agent_changes_its_digest_and_nothing_else_does(catalog: Engine) -> None:
    changed: list[dict[str, Any]] = [
        {"model": "other"}, {"max_turns": 5}, {"max_tokens": 9}, {"max_cost_usd": 1.0}, {"timeout_s": 5.0},
        {"parameters": {"temperature": 0.5}}, {"tools": ("terminal",)}, {"prompts": {"system": "Be terse."}},
        {"condenser": {"max_size": 80, "keep_first": 2}},
    ]  # fmt: skip
    with session(catalog) as db:
        first, is_new = agent_configs.add(db, SPEC)
        same, again = agent_configs.add(db, replace(SPEC, name="renamed", n_replicas=4))
        others = [agent_configs.add(db, replace(SPEC, name=str(n), **facts))[0] for n, facts in enumerate(changed)]
        digests = {first.digest, *(other.digest for other in others)}
    assert (is_new, again, same.name) == (True, False, "mine")
    assert len(digests) == 1 + len(changed)


def test_a_row_holds_the_prompts_that_are_sent_and_gives_its_spec_back(catalog: Engine) -> None:
    spec = replace(SPEC, prompts={"task": "Do @STATEMENT@"}, tools=("terminal",), n_replicas=3)
    with session(catalog) as db:
        agent_configs.add(db, spec)
    with session(catalog) as db:
        row = agent_configs.find(db, "mine")
        read = agent_configs.spec_of(row)
        assert agent_configs.find(db, agent_configs.short(row.digest)).id == row.id
        assert agent_configs.agent_digest(read) == row.digest
    assert replace(read, prompts=spec.prompts) == spec
    assert read.prompts == {
        "system": prompt_text("system.txt"), "task": "Do @STATEMENT@", "continue": prompt_text("continue.txt"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"parameters": {"temprature": 1}}, "no model parameter 'temprature'"),
        ({"tools": ("browser",)}, "no tool 'browser'"),
        ({"prompts": {"task": "Do it."}}, "would not see the issue"),
        ({"condenser": {"max_size": 4, "keep_first": 2}}, "keep_first"),
        ({"parameters": {"litellm_extra_body": {"api_key": "hidden-in-here"}}}, "holds the parameter 'api_key'"),
        ({"parameters": {"extra_headers": {"Authorization": "Bearer x"}}}, "holds the parameter 'Authorization'"),
        ({"parameters": {"extra_headers": {"X-Team": KEY}}}, "one of your secrets"),
        ({"prompts": {"system": f"The key is {KEY}."}}, "one of your secrets"),
    ],
)
def test_what_cannot_be_or_would_store_a_key_is_refused(catalog: Engine, facts: dict[str, Any], says: str) -> None:
    settings = Settings(model_api_key=KEY)
    with session(catalog) as db, pytest.raises(UsageError, match=says) as told:
        agent_configs.add(db, replace(SPEC, **facts), redact=settings.redact)
    assert KEY not in str(told.value)


def test_a_name_means_one_agent(catalog: Engine) -> None:
    with session(catalog) as db:
        agent_configs.add(db, SPEC)
        with pytest.raises(UsageError, match="that of another agent"):
            agent_configs.add(db, replace(SPEC, max_turns=5))
        renamed, _ = agent_configs.add(db, replace(SPEC, max_turns=5), rename=True)
        assert renamed.name == f"mine@{agent_configs.short(renamed.digest)}"
        assert [row.name for row in db.exec(select(AgentConfig))] == ["mine", renamed.name]
        with pytest.raises(UsageError, match="no agent 'min'"):
            agent_configs.find(db, "min")


def test_agents_are_added_listed_and_shown_and_keys_stay_out(tmp_path: Path) -> None:
    home, prompt = tmp_path / "home", tmp_path / "terse.txt"
    prompt.write_text("Be terse.\n")
    options = ["--name", "terse", "-m", "m", "-p", "temperature=0.5", "--prompt", f"system={prompt}", "-k", "4"]
    limits = ["--max-tokens", "9000", "--condenser", "max_size=80"]
    added = run(home, "agent", "add", *options, *limits, "--json", SWEFACTORY_MODEL_API_KEY=KEY)
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["is_new"]
    shown = json.loads(run(home, "agent", "show", "terse", "--json").stdout)
    assert (shown["prompts"]["system"], shown["n_replicas"], shown["max_tokens"]) == ("Be terse.\n", 4, 9000)
    assert (shown["parameters"], shown["condenser"]) == ({"temperature": 0.5}, {"max_size": 80, "keep_first": 2})
    listed = json.loads(run(home, "agent", "list", "--json").stdout)
    assert [(row["agent"], row["rollouts"]) for row in listed] == [("terse", 0)]
    secrets = tmp_path / "secrets"  # the key from a file is known as well as one from a variable
    secrets.mkdir()
    (secrets / "swefactory_model_api_key").write_text(f"{KEY}\n")
    holding_it = ["agent", "add", "-m", "m", "-p", f'extra_headers={{"X": "{KEY}"}}']
    refused = run(home, *holding_it, SWEFACTORY_SECRETS_DIR=str(secrets))
    assert (refused.returncode, "one of your secrets" in refused.stderr) == (2, True)
    assert KEY not in "\n".join(sqlite3.connect(home / "catalog.db").iterdump())
