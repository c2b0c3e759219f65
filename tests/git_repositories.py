"""Real little git repositories for tests, made commit by commit. One property: the same calls give the same hashes."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


class WorkRepository:
    """A repository with a working tree, on branch main. Each commit is one day after the last, from 2024-01-01."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._n_commits = 0
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", "--template=")

    def git(self, *args: str) -> str:
        day = f"{1704067200 + 86400 * self._n_commits} +0000"
        env = {**os.environ, **_ENV, "GIT_AUTHOR_DATE": day, "GIT_COMMITTER_DATE": day}
        command = ["git", "-c", "protocol.file.allow=always", *args]
        return subprocess.run(
            command, cwd=self.path, env=env, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, message: str, files: Mapping[str, str | bytes | None]) -> str:
        """Writes files (None deletes), commits everything; the new commit's id."""
        for name, content in files.items():
            file = self.path / name
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.commit_all(message)

    def commit_all(self, message: str) -> str:
        self._n_commits += 1
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    def branch(self, name: str, start: str = "main") -> None:
        self.git("checkout", "--quiet", "-b", name, start)

    def switch(self, name: str) -> None:
        self.git("checkout", "--quiet", name)

    def merge(self, branch: str, message: str) -> str:
        """A merge commit of `branch` into main."""
        self.switch("main")
        self._n_commits += 1
        self.git("merge", "--quiet", "--no-ff", "--message", message, branch)
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")
