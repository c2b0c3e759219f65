"""Are our fields those that SWE-bench's own collector gives to the same pull requests? One property: each instance
that both know is counted in each field, under a word that says how far the two agree.

    GH_HOST=URL GITHUB_TOKENS=x GITHUB_TOKEN=x swebench dataset collect OWNER/NAME
    python benchmarks/exports/collector.py HOME tasks/NAME-task-instances.jsonl… [--show WORD] [--json]

HOME holds the catalog that crawled the same GitHub (crawl and candidate jobs are enough).

    same      byte for byte
    form      patches: but for the length of blob ids, a hunk's length of 1 (theirs writes it out) and what stands after
              its second @@ (git's guess at the function around it); hints: each comment ends with a line break,
              theirs have it in between
    split     the same changes, otherwise divided: a test is a test by what it holds, theirs by "test" in its path
    range     the diff of other commits: ours of what was merged, or from where the branch really left (see
              swefactory/pull_ranges.py); theirs of the branch's head against where it left the base
    order     the same issues: ours by number, theirs in no order
    stripped  without lines that tell the solution; `statement_strips` names the rules
    issues    of other issues: ours link by more than closing keywords, theirs by any "fixes #N" of title, body, commits
    fewer     comments before the first commit of all, by either of a commit's two times; theirs: before the author's
              time of the first that GitHub lists
    other     nothing of this: a difference that is not meant
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from sqlmodel import col, select

from db.engine import make_engine, session
from db.enums import StageName
from db.models import Issue, Job, PullRequest, PullRequestIssue, Repository, TaskInstance
from swefactory.config import Settings

FIELDS = (
    "instance_id", "repo", "base_commit", "created_at", "patch", "test_patch", "problem_statement", "hints_text",
)  # fmt: skip
WORDS = ("same", "form", "split", "range", "order", "stripped", "issues", "fewer", "other")
_BLOBS = re.compile(r"^index ([0-9a-f]{7})[0-9a-f]*\.\.([0-9a-f]{7})[0-9a-f]*", re.MULTILINE)
_HUNK = re.compile(r"^@@ -(\d+)(?:,1)?(,\d+)? \+(\d+)(?:,1)?(,\d+)? @@.*$", re.MULTILINE)
_FILE = re.compile(r"^(?=diff --git )", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One instance as one side tells it."""

    fields: Mapping[str, str]
    issues: frozenset[int]
    strips: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> str:
        return self.fields[name]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("home", type=Path)
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--show", choices=WORDS, action="append", default=[], help="name the instances of this word")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    engine = make_engine(Settings(home=options.home, database_url="").catalog_url)
    theirs = collected(path for path in options.tasks)
    mine = ours(engine, {row["repo"] for row in theirs.values()})
    found = {name: agreement(mine[name], theirs[name]) for name in sorted(mine.keys() & theirs.keys())}
    told = {"fields": table(found.values()), "both": len(found), "theirs alone": fates(engine, theirs.keys() - mine)}
    told["ours alone"] = {"link": len(mine.keys() - theirs.keys())}
    engine.dispose()
    print(json.dumps(told, indent=1) if options.json else _printed(told))
    for name, words in found.items():
        for field, word in words.items():
            if word in options.show:
                print(f"{word}: {field} of {name}", file=sys.stderr)
    return 0


# ---------------------------------------------------------------- the two sides


def collected(paths: Iterable[Path]) -> dict[str, Row]:
    """What the collector wrote."""
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in lines]
    return {
        row["instance_id"]: Row({name: row[name] for name in FIELDS}, frozenset(map(int, row["issue_numbers"])))
        for row in rows
    }


def ours(engine: Engine, repositories: Iterable[str]) -> dict[str, Row]:
    """The catalog's task instances of these repositories, whatever became of them."""
    with session(engine, writing=False) as db:
        linked = select(PullRequestIssue.pull_request_id, Issue.number).join(
            Issue, col(Issue.id) == col(PullRequestIssue.issue_id)
        )
        issues: dict[int, set[int]] = {}
        for pull_request_id, number in db.exec(linked):
            issues.setdefault(pull_request_id, set()).add(number)
        statement = select(TaskInstance, Repository.name).join(
            Repository, col(Repository.id) == col(TaskInstance.repository_id)
        )
        return {
            instance.instance_id: Row(
                _fields(instance, name),
                frozenset(issues.get(instance.pull_request_id, ())),
                tuple(instance.statement_strips),
            )
            for instance, name in db.exec(statement.where(col(Repository.name).in_(sorted(repositories))))
        }


def _fields(instance: TaskInstance, repository: str) -> dict[str, str]:
    """As `export swebench` writes them."""
    created_at = instance.created_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        **{name: getattr(instance, name, "") for name in FIELDS}, "repo": repository, "created_at": created_at,
    }  # fmt: skip


def fates(engine: Engine, instance_ids: Iterable[str]) -> dict[str, int]:
    """Why the catalog has no candidate of these: reason -> how many."""
    statement = (
        select(Repository.name, PullRequest.number, Job.reason)
        .join(PullRequest, col(PullRequest.repository_id) == col(Repository.id))
        .outerjoin(Job, (col(Job.subject_id) == col(PullRequest.id)) & (col(Job.stage) == StageName.CANDIDATE))
    )
    with session(engine, writing=False) as db:
        reasons = {
            f"{name.replace('/', '__')}-{number}": reason.value if reason else "none"
            for name, number, reason in db.exec(statement)
        }
    return dict(Counter(reasons.get(name, "not crawled") for name in instance_ids).most_common())


# ---------------------------------------------------------------- comparing


def agreement(mine: Row, theirs: Row) -> dict[str, str]:
    """Field -> how far the two agree on it."""
    return {
        name: "same" if mine[name] == theirs[name] else _COMPARED.get(name, lambda *_: "other")(mine, theirs, name)
        for name in FIELDS
    }


def _patch(mine: Row, theirs: Row, name: str) -> str:
    if _files(mine[name]) == _files(theirs[name]):
        return "form"
    both = [sorted(_files(row["patch"]) + _files(row["test_patch"])) for row in (mine, theirs)]
    if both[0] == both[1]:
        return "split"
    names = [sorted(part.split("\n", 1)[0] for part in parts) for parts in both]
    blobs = [_BLOBS.findall("".join(parts)) for parts in both]
    return "range" if names[0] == names[1] and blobs[0] != blobs[1] else "other"


def _files(patch: str) -> list[str]:
    """A diff's files, without what git leaves to taste."""
    plain = _HUNK.sub(r"@@ -\1\2 +\3\4 @@", _BLOBS.sub(r"index \1..\2", patch))
    return [part for part in _FILE.split(plain) if part]


def _text(mine: Row, theirs: Row, name: str) -> str:
    if any(each.startswith(f"{name}:") for each in mine.strips):
        return "stripped"
    if mine.issues != theirs.issues:
        return "issues"
    told, wanted = _lines(mine[name]), _lines(theirs[name])
    if name == "hints_text" and told == wanted:
        return "form"
    if sorted(told) == sorted(wanted):
        return "order"
    return "fewer" if name == "hints_text" and not Counter(told) - Counter(wanted) else "other"


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


_COMPARED = {
    "base_commit": lambda *_: "range", "patch": _patch, "test_patch": _patch,
    "problem_statement": _text, "hints_text": _text,
}  # fmt: skip


# ---------------------------------------------------------------- the table


def table(found: Iterable[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """Field -> word -> how many instances."""
    words = list(found)
    return {name: dict(Counter(each[name] for each in words)) for name in FIELDS}


def _printed(told: Mapping[str, object]) -> str:
    fields = told["fields"]
    assert isinstance(fields, dict)
    used: Sequence[str] = [word for word in WORDS if any(word in counts for counts in fields.values())]
    lines = [f"| field | {' | '.join(used)} |", "|---" * (len(used) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(str(n.get(word, 0)) for word in used)} |" for name, n in fields.items()]
    rest = [f"{name}: {told[name]}" for name in ("both", "theirs alone", "ours alone")]
    return "\n".join([*lines, "", *rest])


if __name__ == "__main__":
    sys.exit(main())
