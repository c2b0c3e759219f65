"""Makes the sample repository's history from sample/. One property: the same commit ids every time, on any machine.

    sample/history.toml   the issues, the pull requests and the commits between them, in order
    sample/base/          the files of the first commit
    sample/patches/       what each later commit changes

Authors and times come from history.toml and nothing of the user's git configuration is read. What GitHub computes
(diffs, files, base and merge commits) is then read back from the repository, so the two cannot disagree.
"""

import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from db.models import RejectReason
from swefactory.demo.records import (
    DemoComment,
    DemoCommit,
    DemoFile,
    DemoHistory,
    DemoIssue,
    DemoPerson,
    DemoPull,
    ScriptedSolution,
    instance_id,
)

SAMPLE = Path(__file__).parent / "sample"
MAIN = "main"
_TIMEOUT_S = 60
_CONFIG = ("core.hooksPath=/dev/null", "core.autocrlf=false", "core.fileMode=true", "gc.auto=0", "commit.gpgSign=false")
_WEB = DemoPerson("web-flow", "GitHub", "noreply@github.example")  # who commits when a button merges

type _Table = Mapping[str, Any]  # what tomllib reads


def build_history(folder: Path) -> DemoHistory:
    """Makes the bare repository below `folder`, unless it stands there already, and reads the history back.

    Its directory is named after the tip of main, so an older sample is never mistaken for this one.
    """
    story = tomllib.loads((SAMPLE / "history.toml").read_text(encoding="utf-8"))
    people = {login: DemoPerson(login, **person) for login, person in story["people"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        bases = _Builder(Path(part) / "work", people).build(story["steps"])
        bare = Path(part) / "bare.git"
        _publish(Path(part) / "work", bare)
        tip = _git(bare, "rev-parse", "--short=12", MAIN).strip()
        target = folder / f"{story['name'].replace('/', '+')}-{tip}.git"
        if not target.exists():
            bare.rename(target)
    return _read(story, people, target, bases)


class _Builder:
    """Plays the steps in a work tree; remembers what main was before each pull request was opened."""

    def __init__(self, folder: Path, people: Mapping[str, DemoPerson]) -> None:
        self._folder = folder
        self._people = people
        self._tips: dict[str, str] = {}  # step's key -> main after it

    def build(self, steps: Sequence[_Table]) -> dict[int, str]:
        """The base commit of every pull request, by its number."""
        shutil.copytree(SAMPLE / "base", self._folder, ignore=shutil.ignore_patterns("__pycache__"))
        for path in self._folder.rglob("*"):  # an installer or a umask may have set other modes
            path.chmod(0o755 if path.is_dir() else 0o644)
        self._git("init", "--quiet", f"--initial-branch={MAIN}", "--template=")
        return {step["number"]: base for step in steps if (base := self._play(step))}

    def _play(self, step: _Table) -> str | None:
        if "number" in step:
            return self._pull(step)
        self._commit(step, self._people[step["author"]])
        self._tips[step["key"]] = self._git("rev-parse", "HEAD").strip()
        if "tag" in step:
            self._git("tag", step["tag"])
        return None

    def _pull(self, step: _Table) -> str:
        number, author = step["number"], self._people[step["author"]]
        base = self._tips[step["branched_at"]] if "branched_at" in step else self._git("rev-parse", MAIN).strip()
        self._git("checkout", "--quiet", "-b", f"pull-{number}", base)
        for commit in step["commits"]:
            self._commit(commit, author)
        self._git("update-ref", f"refs/pull/{number}/head", "HEAD")
        self._git("checkout", "--quiet", MAIN)
        self._merge(step, author)
        return base

    def _merge(self, step: _Table, author: DemoPerson) -> None:
        branch, body = f"pull-{step['number']}", step.get("message_body", "")
        match step["merge"]:
            case "merge":
                title = f"Merge pull request #{step['number']} from {author.login}/{step['branch']}\n\n{step['title']}"
                message, who = _message(title, body), self._people[step["merged_by"]]
                env = _identity(who, _WEB, step["merged_at"])
                self._git("merge", "--quiet", "--no-ff", "-m", message, branch, env=env)
            case "squash":
                self._git("merge", "--quiet", "--squash", branch)
                message = _message(f"{step['title']} (#{step['number']})", body)
                env = _identity(author, _WEB, step["merged_at"])
                self._git("commit", "--quiet", "-m", message, env=env)

    def _commit(self, commit: _Table, author: DemoPerson) -> None:
        if patch := commit.get("patch"):
            self._git("apply", "--index", str(SAMPLE / "patches" / f"{patch}.patch"))
        else:
            self._git("add", "--all", "--force")
        self._git("commit", "--quiet", "-m", commit["message"], env=_identity(author, author, commit["at"]))

    def _git(self, *args: str, env: Mapping[str, str] | None = None) -> str:
        return _git(self._folder, *args, env=env)


def _message(title: str, body: str) -> str:
    return f"{title}\n\n{body}" if body else title


def _publish(work: Path, bare: Path) -> None:
    """The bare repository with the refs that GitHub would show; branches of forks are not among them."""
    _git(work, "init", "--quiet", "--bare", f"--initial-branch={MAIN}", "--template=", str(bare))
    refs = (f"refs/heads/{MAIN}", "refs/tags/*", "refs/pull/*")
    _git(work, "push", "--quiet", str(bare), *(f"+{ref}:{ref}" for ref in refs))


def _identity(author: DemoPerson, committer: DemoPerson, at: datetime) -> dict[str, str]:
    when = f"{int(at.timestamp())} +0000"
    return {
        "GIT_AUTHOR_NAME": author.name,
        "GIT_AUTHOR_EMAIL": author.email,
        "GIT_AUTHOR_DATE": when,
        "GIT_COMMITTER_NAME": committer.name,
        "GIT_COMMITTER_EMAIL": committer.email,
        "GIT_COMMITTER_DATE": when,
    }


def git_environment() -> dict[str, str]:
    """The environment for git without anything of the user's: a GIT_DIR left over from a hook would write into
    another repository."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    isolated = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return {**clean, **isolated, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "TZ": "UTC"}


def _git(folder: Path, *args: str, env: Mapping[str, str] | None = None) -> str:
    settings = [word for setting in _CONFIG for word in ("-c", setting)]
    return subprocess.run(
        ["git", *settings, *args],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=_TIMEOUT_S,
        env={**git_environment(), **(env or {})},
    ).stdout


# ------------------------------------------------------------------------------------------------ reading it back


def _read(story: _Table, people: Mapping[str, DemoPerson], git_dir: Path, bases: Mapping[int, str]) -> DemoHistory:
    by_email = {person.email: person for person in (*people.values(), _WEB)}
    commits = _commits(git_dir, by_email, "--all")
    merges = _merge_commits(story["steps"], commits)
    pulls = (s for s in story["steps"] if "number" in s)
    return DemoHistory(
        name=story["name"],
        formerly=tuple(story["formerly"]),
        git_dir=git_dir,
        description=story["description"],
        license=story["license"],
        n_stars=story["n_stars"],
        created_at=story["created_at"],
        default_branch=MAIN,
        tests_break_after=story["tests_break_after"],
        head_commit=_git(git_dir, "rev-parse", MAIN).strip(),
        commits=commits,
        people=people,
        issues=tuple(_issue(issue) for issue in story["issues"]),
        pulls=tuple(_read_pull(s, git_dir, by_email, bases[s["number"]], merges.get(s["number"], "")) for s in pulls),
        solutions=tuple(_solution(story["name"], solution) for solution in story["solutions"]),
    )


def _issue(issue: _Table) -> DemoIssue:
    return DemoIssue(
        number=issue["number"],
        title=issue["title"],
        body=issue["body"].strip(),
        author=issue["author"],
        opened_at=issue["at"],
        closed_at=issue.get("closed_at"),
        labels=tuple(issue.get("labels", ())),
        comments=tuple(
            DemoComment(issue["number"] * 1000 + n, comment["author"], comment["at"], comment["body"].strip())
            for n, comment in enumerate(issue.get("comments", ()), 1)
        ),
    )


def _solution(name: str, solution: _Table) -> ScriptedSolution:
    rest = {key: value for key, value in solution.items() if key not in ("number", "old", "new")}
    old, new = solution["old"].rstrip("\n"), solution["new"].rstrip("\n")
    return ScriptedSolution(instance_id=instance_id(name, solution["number"]), old=old, new=new, **rest)


def _read_pull(
    step: _Table, git_dir: Path, people: Mapping[str, DemoPerson], base: str, merge_commit: str
) -> DemoPull:
    head = f"refs/pull/{step['number']}/head"
    return DemoPull(
        number=step["number"],
        title=step["title"],
        body=step["body"].strip(),
        author=step["author"],
        merged_by=step.get("merged_by", ""),
        branch=step["branch"],
        opened_at=step["at"],
        merged_at=step.get("merged_at"),
        closed_at=step.get("merged_at") or step["closed_at"],
        base_commit=base,
        head_commit=_git(git_dir, "rev-parse", head).strip(),
        merge_commit=merge_commit,
        commits=tuple(reversed(_commits(git_dir, people, f"{base}..{head}"))),
        files=_files(git_dir, base, head),
        diff=_git(git_dir, "diff", "--no-color", "--no-ext-diff", f"{base}...{head}"),
        closes=tuple(step["closes"]),
        reason=RejectReason(step["reason"]) if step.get("reason") else None,
    )


def _merge_commits(steps: Sequence[_Table], commits: Sequence[DemoCommit]) -> dict[int, str]:
    """By pull request: the commit that merged it is the one that was made in that second."""
    by_time = {commit.at: commit.sha for commit in commits}
    return {step["number"]: by_time[step["merged_at"]] for step in steps if "merged_at" in step}


def _commits(git_dir: Path, people: Mapping[str, DemoPerson], *revisions: str) -> tuple[DemoCommit, ...]:
    """Newest first, parents after their children."""
    texts = _git(git_dir, "log", "-z", "--topo-order", "--format=%H%n%P%n%T%n%ae%n%at%n%B", *revisions).split("\0")
    return tuple(_commit(text, people) for text in texts if text.strip())


def _commit(text: str, people: Mapping[str, DemoPerson]) -> DemoCommit:
    sha, parents, tree, email, at, message = text.split("\n", 5)
    when = datetime.fromtimestamp(int(at), UTC)
    return DemoCommit(sha, tuple(parents.split()), tree, message.strip(), people[email], when)


def _files(git_dir: Path, base: str, head: str) -> tuple[DemoFile, ...]:
    revisions = f"{base}...{head}"
    words = {"A": "added", "M": "modified", "D": "removed"}
    raw = _git(git_dir, "diff", "--raw", "--no-renames", "--no-abbrev", revisions).splitlines()
    counts = [line.split("\t") for line in _git(git_dir, "diff", "--numstat", "--no-renames", revisions).splitlines()]
    files = []
    for line, (added, deleted, path) in zip(raw, counts, strict=True):
        _, _, _, blob, letter = line.split("\t")[0].split()
        patch = _git(git_dir, "diff", "--no-color", "--no-ext-diff", "--no-renames", revisions, "--", path)
        hunks = patch[patch.index("@@ ") :].rstrip("\n")
        files.append(DemoFile(path, words[letter], int(added), int(deleted), blob, hunks))
    return tuple(files)
