"""What the workers are given to do: repositories, of three kinds. One property: the same for every run of one seed, and
what becomes of each does not depend on which comes first.

* histories of our own, mined from git: one crawl, and a candidate for each of four pull requests;
* the demo's repository, mined from its GitHub one pull request a page: a crawl job that is opened again and again;
* names that its GitHub does not know: one crawl, which is rejected.
"""

import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from sqlmodel import select

from db.engine import session
from db.enums import SourceKind
from db.models import Issue, Repository
from swefactory import admin
from swefactory.git_commands import git_environment
from tests import tally_history

MAX_ATTEMPTS = 1000  # whoever is killed at random for minutes spends more than the usual three


@dataclass(frozen=True)
class Addition:
    """A repository, and the issues that GitHub is taken to have told of before."""

    name: str
    clone_url: str = ""
    issues: tuple[tuple[int, str, str], ...] = ()

    def add_to(self, engine: Engine) -> None:
        """Once, however often it is called: a try may have been committed though its answer was lost."""
        source = SourceKind.GIT_HISTORY if self.clone_url else SourceKind.GITHUB
        with session(engine) as db:
            if admin.known_repository(db, self.name):
                return
            admin.add_repository(db, self.name, source=source, clone_url=self.clone_url, max_attempts=MAX_ATTEMPTS)
            row = db.exec(select(Repository).where(Repository.name == self.name)).one()
            for number, title, body in self.issues:
                db.add(Issue(repository_id=row.id, number=number, title=title, body=body))


def additions(folder: Path, demo: str, n_histories: int, n_absent: int) -> list[Addition]:
    """The demo's repository first, then the others, mixed."""
    chance = random.Random(1)
    folder.mkdir()
    others = [_history(folder, number, chance) for number in range(n_histories)]
    others += [Addition(f"acme/absent-{number:03}") for number in range(n_absent)]
    chance.shuffle(others)
    return [Addition(demo), *others]


def tally(folder: Path) -> Addition:
    """The tests' usual repository, of which two pull requests validate."""
    history = tally_history.make_history(folder)
    issues = tuple((number, title, body) for number, (title, body) in tally_history.ISSUES.items())
    return Addition(tally_history.NAME, str(history), issues)


_PULLS = ("fix", "fix", "docs", "bare", "fix")  # the last but one names no issue


def _history(folder: Path, number: int, chance: random.Random) -> Addition:
    """No two share words enough to be taken for one problem."""
    path = folder / f"history-{number:03}"
    path.mkdir()
    issues, stream = [], "".join(_commits(number, chance))
    for place, kind in enumerate(_PULLS):
        if kind != "bare":
            issues.append((2 * place + 1, _words(chance, 4), _words(chance, 40)))
    _git(path, "init", "--quiet", "--bare", "--initial-branch=main", "--template=")
    _git(path, "fast-import", "--quiet", stdin=stream)
    return Addition(f"acme/history-{number:03}", str(path), tuple(issues))


def _commits(number: int, chance: random.Random) -> Iterator[str]:
    files = {"pyproject.toml": f'[project]\nname = "h{number}"\nversion = "1.{number}"\n', "README.md": "H\n",
             f"h{number}.py": "VALUES = []\n",
             "tests/test_h.py": f"import h{number}\n\n\ndef test_h():\n    assert h{number}\n"}  # fmt: skip
    yield _commit(0, "Begin", files)
    for place, kind in enumerate(_PULLS):
        word = _words(chance, 1)
        if kind == "docs":
            files["README.md"] += f"It is {word}.\n"
        else:
            files[f"h{number}.py"] += f"VALUES.append({word!r})\n"
            files["tests/test_h.py"] += f"\n\ndef test_{word}():\n    assert {word!r} in h{number}.VALUES\n"
        closes = "" if kind == "bare" else f"\n\nCloses #{2 * place + 1}"
        yield _commit(place + 1, f"Say {word} (#{2 * place + 2}){closes}", files)


def _commit(day: int, message: str, files: dict[str, str]) -> str:
    lines = ["commit refs/heads/main\n", f"committer Ann <ann@example.org> {1709294400 + 86400 * day} +0000\n",
             f"data {len(message)}\n{message}\n"]  # fmt: skip
    lines += [f"M 100644 inline {path}\ndata {len(text)}\n{text}\n" for path, text in files.items()]
    return "".join(lines)


def _words(chance: random.Random, n: int) -> str:
    return " ".join("".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(n))


def _git(folder: Path, *arguments: str, stdin: str = "") -> None:
    subprocess.run(["git", *arguments], cwd=folder, input=stdin, text=True, check=True, env=git_environment())
