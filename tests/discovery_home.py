"""`swefactory` called in this process, as its main function does it: many commands, one start."""

import json
import os
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from swefactory.cli.main import app
from swefactory.errors import exit_code
from tests.fake_github import FakeGitHub


class Home:
    """A home of its own and a GitHub with these repositories. `said` is the standard error of the last command."""

    def __init__(self, folder: Path, github: FakeGitHub) -> None:
        self.folder, self.github, self.said = folder, github, ""

    def run(self, *args: str, code: int = 0, **environment: str) -> str:
        """What it printed on standard output, once its exit code is the expected one."""
        env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("SWEFACTORY_")}
        env |= {"SWEFACTORY_HOME": str(self.folder), "SWEFACTORY_GITHUB_URL": self.github.url}
        env |= {"SWEFACTORY_GITHUB_TOKEN": "a-token-for-tests", "SWEFACTORY_GITHUB_PAUSE_S": "0", **environment}
        ran = CliRunner().invoke(app, args, env=env)
        seen = ran.exit_code
        said = ran.stderr
        if ran.exception and not isinstance(ran.exception, SystemExit):
            foreseen = exit_code(ran.exception)
            if foreseen is None:
                raise ran.exception
            seen, said = foreseen, said + str(ran.exception)
        assert seen == code, ran.stdout + said
        self.said = said
        return ran.stdout

    def discover(self, *args: str, code: int = 0, **environment: str) -> list[dict[str, Any]]:
        printed = self.run("repo", "discover", *args, "--json", code=code, **environment)
        found: list[dict[str, Any]] = json.loads(printed)
        return found

    def verdicts(self, *args: str, code: int = 0, **environment: str) -> dict[str, str]:
        """The verdict on each repository, or the reason that it was refused for."""
        rows = self.discover(*args, code=code, **environment)
        return {row["repository"]: row["reason"] or row["verdict"] for row in rows}

    def watched(self) -> list[str]:
        said = self.said
        names = [row["name"] for row in json.loads(self.run("repo", "list", "--json"))]
        self.said = said
        return names
