"""Bare mirrors of repositories, and plain trees of their commits. One property: never runs repository code.

    MIRRORS/owner+name.git        one bare mirror a repository: branches and tags, and commits fetched one by one where
                                  no branch holds them (heads of squashed pull requests); nothing is ever collected
    CACHE/trees/owner+name/SHA/   one commit's files, no .git; shared, so never written after it is complete

git gets no user configuration, hooks, filters (LFS among them), end-of-line conversions, replacements or other
protocols than http(s), git and file: a tree holds the bytes of the commit and a diff is the same on every machine.
"""

import base64
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from db.models import RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient

MIRROR_HEAD = "refs/swefactory/HEAD"  # what HEAD was where the mirror came from, a detached one too
_REFSPECS = (
    f"+HEAD:{MIRROR_HEAD}",
    *(f"+refs/{kind}/*:refs/{kind}/*" for kind in ("heads", "tags", "remotes")),
)
_PULL_HEADS = "+refs/pull/*/head:refs/pull/*/head"
_ATTRIBUTES = "* -text !eol -ident -filter -working-tree-encoding\n"  # info/attributes wins over .gitattributes
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_GIT_ENV = {
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "http:https:git:file",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_AUTHOR_NAME": "swefactory",
    "GIT_AUTHOR_EMAIL": "swefactory@localhost",
    "GIT_COMMITTER_NAME": "swefactory",
    "GIT_COMMITTER_EMAIL": "swefactory@localhost",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}
_TIMEOUT_S = 1800
_FRESH_S = 600  # a mirror fetched this recently is not fetched whole again for one missing commit
_ABSENT = re.compile(
    r"not found|does not exist|does not appear to be a git repository|could not read Username|Authentication failed"
    r"|couldn't find remote ref HEAD|transport '\w+' not allowed",
    re.IGNORECASE,
)
_BROKEN = re.compile(r"repository corruption on the remote side|not our ref|unadvertised object", re.IGNORECASE)
_LATER = re.compile(
    r"could not resolve|connection|timed out|early EOF|hung up|RPC failed|returned error|failed to connect"
    r"|unable to access",
    re.IGNORECASE,
)


def git_environment(**more: str) -> dict[str, str]:
    """The environment git runs in: this process's without its GIT_* (a hook's GIT_DIR would misdirect git)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    tls = {name: value for name, value in os.environ.items() if name.startswith("GIT_SSL_")}
    return {**kept, **tls, **_GIT_ENV, **more}


def run_git(
    folder: Path,
    *args: str,
    stdin: bytes = b"",
    timeout_s: float = _TIMEOUT_S,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Runs git in `folder`, never in a repository above it; returns stdout. Raises CalledProcessError."""
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0", *args]
    above = str(folder.resolve().parent)
    surroundings = git_environment(GIT_CEILING_DIRECTORIES=above, **(env or {}))
    return subprocess.run(
        command, cwd=folder, input=stdin, check=True, capture_output=True, timeout=timeout_s, env=surroundings
    ).stdout


class Checkouts:
    """Mirrors and trees below two folders; safe to use from several processes at once. The token goes over https
    to the web host of `api_url` only (over http to that very host and port)."""

    def __init__(self, mirrors: Path, cache: Path, token: str = "", api_url: str = "https://api.github.com") -> None:
        self._mirrors = mirrors
        self._trees = cache / "trees"
        self._scratch = cache / "scratch"
        self._token = token
        self._api_url = api_url

    def path_of(self, name: str) -> Path:
        """Where the mirror of `name` is, or would be."""
        return self._mirrors / f"{name.replace('/', '+')}.git"

    def mirror(self, name: str, clone_url: str, *, fetch: bool = False) -> Path:
        """The bare mirror of `name`, cloned when missing, updated when `fetch`.
        Raises Rejected(REPOSITORY_NOT_FOUND), Transient on outages, InfrastructureError."""
        path = self.path_of(name)
        if not fetch and path.exists():
            return path
        with _locked(path), _explained(name, clone_url):
            if not path.exists():
                self._clone(clone_url, path)
            elif fetch:
                self._fetch(path, clone_url)
        return path

    def mirror_with(self, name: str, clone_url: str, commits: Iterable[str]) -> Path:
        """As `mirror`, fetched when one of `commits` is missing; those that cannot be had stay missing."""
        path = self.mirror(name, clone_url)
        wanted = [commit for commit in commits if commit and not self.commit_exists(path, commit)]
        if not wanted:
            return path
        with _locked(path), _explained(name, clone_url):
            if _age_s(path) > _FRESH_S:
                self._fetch(path, clone_url)
            if missing := [commit for commit in wanted if not self.commit_exists(path, commit)]:
                self._fetch_commits(path, clone_url, missing)
        return path

    def commit_exists(self, mirror: Path, commit: str) -> bool:
        """Whether `commit` is in the mirror."""
        return _answers(mirror, "cat-file", "-e", f"{commit}^{{commit}}")

    def merge_base(self, mirror: Path, one: str, other: str) -> str | None:
        """The best common ancestor; None without one, or when a commit is missing."""
        try:
            return run_git(mirror, "merge-base", one, other).decode().strip()
        except subprocess.CalledProcessError:
            return None

    def parent(self, mirror: Path, commit: str) -> str | None:
        """The first parent; None without one, or when a commit is missing."""
        try:
            return run_git(mirror, "rev-parse", "--verify", "--quiet", f"{commit}^^{{commit}}").decode().strip()
        except subprocess.CalledProcessError:
            return None

    def commits(self, mirror: Path, old: str, new: str) -> tuple[str, ...]:
        """Those of `new` that `old` has not, newest first; none when one of the two is missing."""
        if not (old and new):
            return ()
        try:
            return tuple(run_git(mirror, "rev-list", f"{old}..{new}").decode().split())
        except subprocess.CalledProcessError:
            return ()

    def text(self, mirror: Path, commit: str, path: str) -> str | None:
        """A file's text at `commit`; None when there is no such file."""
        try:
            return run_git(mirror, "cat-file", "blob", f"{commit}:{path}").decode("utf-8", "replace")
        except subprocess.CalledProcessError:
            return None

    def paths(self, mirror: Path, commit: str) -> tuple[str, ...]:
        """Every file of `commit`, sorted."""
        listing = run_git(mirror, "ls-tree", "-r", "-z", "--name-only", commit)
        return tuple(listing.decode("utf-8", "surrogateescape").split("\0")[:-1])

    def applies(self, mirror: Path, commit: str, patch: str) -> bool:
        """Whether a diff fits `commit`; nothing is written into the mirror."""
        with tempfile.TemporaryDirectory(prefix="swefactory-index-") as folder:
            env = {"GIT_INDEX_FILE": f"{folder}/index"}
            run_git(mirror, "read-tree", commit, env=env)
            command = ("apply", "--cached", "--check", "--whitespace=nowarn", "-")
            try:
                run_git(mirror, *command, stdin=patch.encode("utf-8", "surrogateescape"), env=env)
            except subprocess.CalledProcessError:
                return False
        return True

    def nearest_tag(self, mirror: Path, commit: str) -> str:
        """The last tag with a number in it before `commit`; empty without one."""
        try:
            return run_git(mirror, "describe", "--tags", "--abbrev=0", "--match=*[0-9]*", commit).decode().strip()
        except subprocess.CalledProcessError:
            return ""

    def diff(self, mirror: Path, old: str, new: str, *, renames: bool = True, as_binary: Sequence[str] = ()) -> str:
        """The change from `old` to `new` as git writes it, whole binary hunks included; bytes that are not UTF-8 as
        surrogates. Files of `as_binary` come as binary hunks; links to other repositories' commits as their ids.
        Raises InfrastructureError when the mirror lacks objects."""
        with tempfile.NamedTemporaryFile("w", prefix="swefactory-attributes-") as attributes:
            attributes.writelines(f"{_attribute_pattern(path)} -diff\n" for path in as_binary)
            attributes.flush()
            command = [
                "-c", f"core.attributesFile={attributes.name}", "diff", "--binary", "--full-index", "--no-color",
                "--no-ext-diff", "--no-textconv", "--diff-algorithm=myers", "--unified=3", "--ignore-submodules=none",
                "--src-prefix=a/", "--dst-prefix=b/", "--find-renames=50%" if renames else "--no-renames", old, new,
            ]  # fmt: skip
            try:
                found = run_git(mirror, *command, env={"GIT_ATTR_SOURCE": _EMPTY_TREE})
            except subprocess.CalledProcessError as error:
                raise InfrastructureError(
                    f"cannot compare {old} with {new} in {mirror}: {_last_line(error.stderr)}; "
                    "if objects are missing there, delete that folder and run again"
                ) from error
        return found.decode("utf-8", "surrogateescape")

    def tree(self, name: str, mirror: Path, commit: str) -> Path:
        """A shared folder with the files of `commit`; do not write into it, see `copy_tree`.
        Raises Rejected(BASE_COMMIT_MISSING)."""
        target = self._trees / name.replace("/", "+") / commit
        if target.exists():
            return target
        if not self.commit_exists(mirror, commit):
            raise Rejected(RejectReason.BASE_COMMIT_MISSING, f"commit {commit} of {name} is not in its mirror")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as part:
            _unpack(mirror, commit, Path(part))
            _move(Path(part) / "tree", target)
        return target

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A private folder for one evaluation, gone when its context ends."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=self._scratch)

    def _clone(self, url: str, path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as part:
            bare = Path(part) / "bare"
            bare.mkdir()
            run_git(bare, "init", "--quiet", "--bare", "--template=", "--initial-branch=main")
            (bare / "info").mkdir(exist_ok=True)
            (bare / "info" / "attributes").write_text(_ATTRIBUTES)
            self._fetch(bare, url)
            answer = run_git(bare, "ls-remote", "--symref", url, "HEAD", env=self._authorisation(url)).decode()
            if found := re.match(r"ref: (refs/heads/\S+)\tHEAD", answer):
                run_git(bare, "symbolic-ref", "HEAD", found[1])
            _move(bare, path)

    def _fetch(self, path: Path, url: str) -> None:
        self._fetch_refs(path, url, "--prune", url, *_REFSPECS)
        (path / "fetched").touch()

    def _fetch_commits(self, path: Path, url: str, commits: Sequence[str]) -> None:
        """All at once, else one by one: a server may have lost one. Those it does not give stay missing."""
        for wanted in (commits, *([commit] for commit in commits if len(commits) > 1)):
            try:
                self._fetch_refs(path, url, url, *wanted)
            except subprocess.CalledProcessError as error:
                if b"unadvertised object" in error.stderr:  # served as plain files: only what has a name
                    self._fetch_refs(path, url, url, _PULL_HEADS)
                    return
                if _LATER.search(error.stderr.decode(errors="replace")) and not _is_broken(error):
                    raise
            else:
                return

    def _fetch_refs(self, path: Path, url: str, *args: str) -> None:
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        run_git(path, "fetch", *options, *args, env=self._authorisation(url))

    def _authorisation(self, url: str) -> dict[str, str]:
        """In the environment of this one command: a URL, an argument or a config file would show the token."""
        ours, theirs = urlsplit(self._api_url), urlsplit(url)
        is_web_host = theirs.scheme == "https" and theirs.hostname == (ours.hostname or "").removeprefix("api.")
        if not self._token or not (is_web_host or (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc)):
            return {}
        credentials = base64.b64encode(f"x-access-token:{self._token}".encode()).decode()
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{theirs.scheme}://{theirs.netloc}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {credentials}",
        }


def copy_tree(source: Path, target: Path) -> None:
    """Copies a tree with links kept as links; copy-on-write where the file system can."""
    command = ["cp", "-a", "--reflink=auto", f"{source}/.", str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    except subprocess.CalledProcessError as error:
        raise InfrastructureError(f"cannot copy {source} to {target}: {_last_line(error.stderr)}") from error


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
    (folder / ".git" / "info").mkdir(exist_ok=True)
    (folder / ".git" / "info" / "attributes").write_text(_ATTRIBUTES)
    run_git(folder, "add", "--all", "--force")
    run_git(folder, "commit", "--quiet", "--no-verify", "--allow-empty", "--message", "base")
    shutil.rmtree(folder / ".git" / "logs", ignore_errors=True)
    return run_git(folder, "rev-parse", "HEAD").decode().strip()


def diff(folder: Path, paths: Sequence[str] = ()) -> str:
    """The change of a sealed tree against its one commit, untracked files, binary and mode changes included. Only
    for a tree whose .git is still the one that `seal` made: a stranger's .git could name programs to run."""
    run_git(folder, "add", "--all")
    return run_git(folder, "diff", "--cached", "--binary", "HEAD", "--", *paths).decode("utf-8", "surrogateescape")


def _unpack(mirror: Path, commit: str, part: Path) -> None:
    """The bytes of the commit: not `git archive`, which obeys the repository's export-ignore and export-subst."""
    tree = part / "tree"
    tree.mkdir()
    env = {
        "GIT_DIR": str(mirror.resolve()),
        "GIT_WORK_TREE": str(tree.resolve()),
        "GIT_INDEX_FILE": str(part / "index"),
    }
    try:
        run_git(tree, "read-tree", commit, env=env)
        run_git(tree, "checkout-index", "--all", "--quiet", env=env)
    except subprocess.CalledProcessError as error:
        raise InfrastructureError(
            f"cannot write the files of {commit} from {mirror.name}: {_last_line(error.stderr)}; is the disk full?"
        ) from error


def _move(part: Path, target: Path) -> None:
    try:
        os.rename(part, target)
    except OSError:  # another process was faster; its result is the same
        if not target.exists():
            raise


def _answers(folder: Path, *args: str) -> bool:
    try:
        run_git(folder, *args)
    except subprocess.CalledProcessError:
        return False
    return True


def _is_broken(error: subprocess.CalledProcessError) -> bool:
    """The other side has lost objects: asking again gives the same, though it looks like a lost connection."""
    return bool(_BROKEN.search(error.stderr.decode(errors="replace")))


def _age_s(mirror: Path) -> float:
    stamp = mirror / "fetched"
    return time.time() - stamp.stat().st_mtime if stamp.exists() else float("inf")


def _attribute_pattern(path: str) -> str:
    """The line of an attributes file that names this one path: glob characters escaped, the whole quoted as in C."""
    escaped = re.sub(r"([\\*?\[])", r"\\\1", path).encode("utf-8", "surrogateescape")
    quoted = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in escaped)
    return f'"/{quoted}"'


def _last_line(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return re.sub(r"://[^/@\s]+@", "://", lines[-1].strip()) if lines else "git said nothing"


@contextmanager
def _locked(mirror: Path) -> Iterator[None]:
    """One process at a time clones or fetches a mirror: two at once would break over each other's ref locks."""
    mirror.parent.mkdir(parents=True, exist_ok=True)
    with mirror.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(name: str, clone_url: str) -> Iterator[None]:
    """Turns git's failures to reach a repository into our error tree."""
    where = re.sub(r"://[^/@\s]+@", "://", clone_url) or "nowhere (it has no clone address)"
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise Transient(
            f"mirroring {name} from {where} took longer than {error.timeout:.0f} s; tried later", 300
        ) from error
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace")
        message = f"cannot mirror {name} from {where}: {_first_fatal(words)}"
        if _LATER.search(words) and not _is_broken(error) and not re.search(r"repository '.*' not found", words):
            raise Transient(f"{message}; tried again in a minute, check the network if it stays so", 60) from error
        if _ABSENT.search(words):
            raise Rejected(RejectReason.REPOSITORY_NOT_FOUND, f"{message}; check the address and the rights") from error
        raise InfrastructureError(f"{message}; see that the disk has room and that git can write there") from error


def _first_fatal(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    fatal = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0] if lines else "git failed")
    return re.sub(r"://[^/@\s]+@", "://", fatal)
