"""The agents without a model, and the choice of an agent by its spec."""

import subprocess
import sys
from pathlib import Path

import pytest

from db.enums import AgentKind, ExitStatus
from swefactory.agents.registry import make_agent
from swefactory.config import Settings
from swefactory.errors import InfrastructureError, UsageError
from swefactory.protocols import AgentSpec, Problem
from tests.fake_agent_sandbox import BubblewrapSandbox

PATCH = """\
diff --git a/a.py b/a.py
--- a/a.py
+++ b/a.py
@@ -1 +1 @@
-x = 1
+x = 2
"""


@pytest.fixture
def sandbox(tmp_path: Path) -> BubblewrapSandbox:
    sandbox = BubblewrapSandbox(tmp_path / "box")
    (sandbox.checkout / "a.py").write_text("x = 1\n")
    return sandbox


def test_the_oracle_applies_the_gold_patch_inside(settings: Settings, sandbox: BubblewrapSandbox) -> None:
    agent = make_agent(AgentSpec(AgentKind.ORACLE, "oracle"), settings)
    result = agent.solve(Problem("o__r-1", "broken", PATCH), sandbox)
    assert result.exit_status is ExitStatus.SUBMITTED
    assert (sandbox.checkout / "a.py").read_text() == "x = 2\n"
    assert result.cost_usd == result.n_turns == 0


def test_an_oracle_whose_patch_does_not_apply_is_not_a_result(settings: Settings, sandbox: BubblewrapSandbox) -> None:
    (sandbox.checkout / "a.py").write_text("x = 7\n")
    agent = make_agent(AgentSpec(AgentKind.ORACLE, "oracle"), settings)
    with pytest.raises(InfrastructureError, match="o__r-1: the gold patch does not apply"):
        agent.solve(Problem("o__r-1", "broken", PATCH), sandbox)


def test_nop_touches_nothing(settings: Settings, sandbox: BubblewrapSandbox) -> None:
    result = make_agent(AgentSpec(AgentKind.NOP, "nop"), settings).solve(Problem("o__r-1", "broken"), sandbox)
    assert result.exit_status is ExitStatus.SUBMITTED
    assert sandbox.commands == []


def test_openhands_without_a_model_is_refused(settings: Settings) -> None:
    with pytest.raises(UsageError, match="names no model"):
        make_agent(AgentSpec(AgentKind.OPENHANDS, "mine"), settings)


_WITHOUT_OPENHANDS = """
import sys
sys.modules["openhands"] = None
from db.enums import (AgentKind)
from swefactory.agents.registry import make_agent
from swefactory.config import Settings
from swefactory.errors import UsageError
from swefactory.protocols import AgentSpec
try:
    make_agent(AgentSpec(AgentKind.OPENHANDS, "mine", model="m"), Settings())
except UsageError as error:
    print(error)
"""


def test_a_missing_extra_is_named_with_the_command_that_installs_it() -> None:
    command = [sys.executable, "-c", _WITHOUT_OPENHANDS]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'swefactory[agent]'" in ran.stdout, ran.stderr
