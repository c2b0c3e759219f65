"""Bare mirrors of repositories, and plain trees of their commits. One property: never runs repository code.

    MIRRORS/owner+name.git        one bare mirror a repository, refs/pull/*/head included
    CACHE/trees/owner+name/SHA/   one commit's files, no .git; shared, so never written after it is complete

Hooks, file-system monitors and other protocols than http(s), git and file are off.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import git

from swefactory.errors import InfrastructureError, Rejected, Transient
from db.models import RejectReason

_GIT_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "http:https:git:file",
    "GIT_AUTHOR_NAME": "swefactory",
    "GIT_AUTHOR_EMAIL": "swefactory@localhost",
    "GIT_COMMITTER_NAME": "swefactory",
    "GIT_COMMITTER_EMAIL": "swefactory@localhost",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}
_TIMEOUT_S = 1800


def run_git(folder: Path, *args: str, stdin: bytes = b"", timeout_s: float = _TIMEOUT_S) -> bytes:
    """Runs git in `folder` with no user configuration; returns stdout. Raises CalledProcessError."""
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", *args]
    # Below somebody's repository `git apply` would take paths as theirs, skip them all and say nothing.
    environment = {**os.environ, **_GIT_ENV, "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}
    return subprocess.run(
        command, cwd=folder, input=stdin, check=True, capture_output=True, timeout=timeout_s, env=environment
    ).stdout


class Checkouts:
    """Mirrors and trees below two folders; safe to use from several processes at once."""

    def __init__(self, mirrors: Path, cache: Path, token: str = "") -> None:
        self._mirrors = mirrors
        self._trees = cache / "trees"
        self._scratch = cache / "scratch"
        self._token = token

    def mirror(self, name: str, clone_url: str, *, fetch: bool = False) -> Path:
        """The bare mirror of `name`, cloned when missing, updated when `fetch`. Raises Transient."""
        path = self._mirrors / f"{name.replace('/', '+')}.git"
        try:
            if not path.exists():
                self._clone(clone_url, path)
            elif fetch:
                self._fetch(git.Repo(path))
        except git.GitCommandError as error:
            reason = str(error.stderr).strip().splitlines()[-1:] or ["git failed"]
            raise Transient(f"cannot mirror {name} from {clone_url}: {reason[0]}; check the address and the network", 60) from error
        return path

    def commit_exists(self, mirror: Path, commit: str) -> bool:
        """Whether `commit` is in the mirror."""
        try:
            run_git(mirror, "cat-file", "-e", f"{commit}^{{commit}}")
        except subprocess.CalledProcessError:
            return False
        return True

    def tree(self, name: str, mirror: Path, commit: str) -> Path:
        """A shared folder with the files of `commit`; do not write into it, see `copy`.
        Raises Rejected(BASE_COMMIT_MISSING)."""
        target = self._trees / name.replace("/", "+") / commit
        if target.exists():
            return target
        if not self.commit_exists(mirror, commit):
            raise Rejected(RejectReason.BASE_COMMIT_MISSING, f"commit {commit} of {name} is not in its mirror")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as part:
            _unpack(mirror, commit, Path(part) / "tree")
            try:
                os.rename(Path(part) / "tree", target)
            except OSError:  # another process was faster; its tree is the same
                if not target.exists():
                    raise
        return target

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A private folder for one evaluation, gone when its context ends."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=self._scratch)

    def _clone(self, url: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as part:
            bare = git.Repo.init(Path(part) / "bare", bare=True)
            bare.create_remote("origin", url)
            with bare.config_writer() as config:
                config.set_value('remote "origin"', "fetch", "+refs/*:refs/*")
            self._fetch(bare)
            try:
                os.rename(bare.git_dir, path)
            except OSError:
                if not path.exists():
                    raise

    def _fetch(self, repo: git.Repo) -> None:
        environment = dict(_GIT_ENV)
        if self._token:  # in the environment of this one command: a URL or a config file would keep it
            environment |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "http.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: Bearer {self._token}",
            }
        with repo.git.custom_environment(**environment):
            repo.git.fetch("origin", "--prune", "--quiet", "--no-write-fetch-head", kill_after_timeout=_TIMEOUT_S)


def copy_tree(source: Path, target: Path) -> None:
    """Copies a tree with links kept as links; copy-on-write where the file system can."""
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(target)], check=True, capture_output=True, timeout=600)


def apply_patch(folder: Path, patch: str) -> None:
    """Applies a unified diff to a tree that is not a repository. git refuses paths that leave the folder or pass
    through a link. Raises ValueError with git's words when it does not apply; the tree is then unchanged."""
    if not patch.strip():
        return
    try:
        run_git(folder, "apply", "--whitespace=nowarn", "-", stdin=patch.encode("utf-8", "surrogateescape"))
    except subprocess.CalledProcessError as error:
        raise ValueError(error.stderr.decode(errors="replace").strip()) from error


def seal(folder: Path) -> str:
    """Turns a tree into a repository of exactly one commit and no other object; returns the commit's id."""
    shutil.rmtree(folder / ".git", ignore_errors=True)
    run_git(folder, "init", "--quiet", "--initial-branch=main", "--template=")
    run_git(folder, "add", "--all", "--force")
    run_git(folder, "commit", "--quiet", "--no-verify", "--allow-empty", "--message", "base")
    shutil.rmtree(folder / ".git" / "logs", ignore_errors=True)
    return run_git(folder, "rev-parse", "HEAD").decode().strip()


def diff(folder: Path, paths: Sequence[str] = ()) -> str:
    """The change of a sealed tree against its one commit, untracked files, binary and mode changes included."""
    run_git(folder, "add", "--all")
    return run_git(folder, "diff", "--cached", "--binary", "HEAD", "--", *paths).decode("utf-8", "surrogateescape")


def _unpack(mirror: Path, commit: str, target: Path) -> None:
    target.mkdir()
    command = ["git", "-c", "core.autocrlf=false", "archive", "--format=tar", commit]
    with subprocess.Popen(command, cwd=mirror, stdout=subprocess.PIPE, env={**os.environ, **_GIT_ENV}) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            archive.extractall(target, filter="tar")
    if process.returncode:
        raise InfrastructureError(f"git archive of {commit} in {mirror.name} ended with {process.returncode}; is the disk full?")
