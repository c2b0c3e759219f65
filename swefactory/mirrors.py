"""Bare mirrors of repositories, without the files' contents. One property: what a mirror lacks is fetched or is an
error; it is never taken for "there is no such thing".

    MIRRORS/owner+name.git    branches and tags, and commits fetched by their id where no branch holds them (heads of
                              squashed pull requests); nothing is ever collected
    MIRRORS/owner+name.lock   held while the mirror is cloned or fetched, by git itself too: a killed process does not
                              free it before its git has ended

A mirror is a partial clone (`blob:none`): commits and trees are there, a blob comes when it is read, many in one
request where it is known which (`prefetch`). A server that cannot filter gives everything, and a whole mirror, as
earlier versions made them, stays as it is. The address in the mirror's settings is that of the last call, without
user and password: those and the token are handed to git by the environment of each command.
"""

import base64
import fcntl
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from swefactory.errors import InfrastructureError, Transient
from swefactory.git_commands import (
    ATTRIBUTES,
    TIMEOUT_S,
    explained,
    is_lost,
    is_unanswered,
    run_git,
    settings_environment,
    without_password,
    words_of,
)
from swefactory.second_looks import confirmed

MIRROR_HEAD = "refs/swefactory/HEAD"  # what HEAD was where the mirror came from, a detached one too
_REFSPECS = (
    f"+HEAD:{MIRROR_HEAD}",
    *(f"+refs/{kind}/*:refs/{kind}/*" for kind in ("heads", "tags", "remotes")),
)
_PULL_HEADS = "+refs/pull/*/head:refs/pull/*/head"
_SETTINGS = {
    "core.repositoryFormatVersion": "1",
    "extensions.partialClone": "origin",
    "remote.origin.promisor": "true",
    "remote.origin.partialCloneFilter": "blob:none",
}
_FRESH_S = 600  # a mirror fetched this recently is not fetched whole again for one missing commit
# A connection is given up when it brings nothing for ten minutes; a server at work sends a byte a second.
_PATIENCE = {"http.lowSpeedLimit": "1", "http.lowSpeedTime": "600"}
_FETCH = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance")
_OBJECT = re.compile(r"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Answers from what is there: only rev-list can be told to fetch nothing, in every version of git in use. Asking for
# a missing commit otherwise costs a request, and with a lost connection a scan of all packs.
_PRESENT = ("rev-list", "--no-walk=unsorted", "--ignore-missing", "--missing=allow-any", "--stdin")


class Mirrors:
    """Mirrors below one folder; safe to use from several processes at once. The token goes over https to the web
    host of `api_url` only (and over its scheme to that very host and port)."""

    def __init__(self, folder: Path, token: str = "", api_url: str = "https://api.github.com") -> None:
        self._mirrors = folder
        self._token = token
        self._api_url = api_url
        self._addresses: dict[Path, str] = {}  # as last called for, with user and password

    def path_of(self, name: str) -> Path:
        """Where the mirror of `name` is, or would be."""
        return self._mirrors / f"{name.replace('/', '+')}.git"

    @confirmed
    def mirror(self, name: str, clone_url: str, *, fetch: bool = False) -> Path:
        """The bare mirror of `name`, cloned when missing, updated when `fetch`; from now on at `clone_url`.
        Raises Rejected(REPOSITORY_NOT_FOUND), Transient on outages, InfrastructureError."""
        path = self.path_of(name)
        with explained(f"mirror {name}", clone_url):
            if fetch or not self._is_at(path, clone_url):
                with _locked(path) as lock:
                    if not path.exists():
                        self._clone(clone_url, path, lock)
                    elif fetch:
                        self._fetch(path, clone_url, lock)
                    else:
                        _point(path, clone_url)
        self._addresses[path] = clone_url
        return path

    def mirror_with(self, name: str, clone_url: str, commits: Iterable[str]) -> Path:
        """As `mirror`, fetched when one of `commits` is missing, all of them in one request; those that cannot be had
        stay missing. Give it a whole page of pull requests' heads at once."""
        path = self.mirror(name, clone_url)
        wanted = {commit for commit in commits if _COMMIT.fullmatch(commit)}
        if not wanted <= self.commits_present(path, wanted):
            self._complete(path, name, clone_url, wanted)
        return path

    @confirmed
    def _complete(self, path: Path, name: str, clone_url: str, wanted: AbstractSet[str]) -> None:
        with explained(f"mirror {name}", clone_url), _locked(path) as lock:
            if _age_s(path) > _FRESH_S:
                self._fetch(path, clone_url, lock)
            if missing := wanted - self.commits_present(path, wanted):
                self._fetch_commits(path, clone_url, sorted(missing), lock)

    def commits_present(self, mirror: Path, commits: Iterable[str]) -> frozenset[str]:
        """Which of these full commit ids are in the mirror. Asks nobody else."""
        asked = {commit for commit in commits if _COMMIT.fullmatch(commit)}
        found = self._git(mirror, *_PRESENT, stdin="".join(f"{one}\n" for one in sorted(asked)).encode())
        return frozenset(found.decode().split()) & asked

    def commit_exists(self, mirror: Path, commit: str) -> bool:
        """Whether `commit`, by whichever name, is in the mirror. Asks nobody else."""
        try:
            return bool(self._git(mirror, *_PRESENT, stdin=f"{commit}^{{commit}}\n".encode()).strip())
        except subprocess.CalledProcessError:  # no name of a commit
            return False

    def prefetch(self, mirror: Path, blobs: Iterable[str]) -> None:
        """Fetches those of `blobs` that the mirror lacks, in one request; left to itself git asks for each alone.
        Errors as `mirror`."""
        wanted = sorted(set(blobs))
        if not wanted or not is_partial(mirror):
            return
        stdin = "".join(f"{blob}\n" for blob in wanted).encode()
        listing = self._git(mirror, *_PRESENT[:-1], "--objects", "--stdin", stdin=stdin)
        present = {line.split(b" ")[0].decode() for line in listing.splitlines()}
        self._fetch_blobs(mirror, [blob for blob in wanted if blob not in present])

    def prefetch_tree(self, mirror: Path, commit: str) -> None:
        """Fetches all contents of `commit` that the mirror lacks, in one request. Errors as `mirror`."""
        if is_partial(mirror):
            listing = self._git(mirror, "rev-list", "--objects", "--no-walk", "--missing=print", commit)
            self._fetch_blobs(mirror, [line[1:].decode() for line in listing.splitlines() if line.startswith(b"?")])

    @confirmed
    def _fetch_blobs(self, mirror: Path, blobs: Sequence[str]) -> None:
        """By their ids, without negotiation: a mirror without blobs has nothing to offer. While this runs the origin
        is no address: git's own fetching of what is missing would otherwise start itself again and again on a server
        that answers with a web page, process upon process."""
        if not blobs:
            return
        stored = _answer(mirror, "config", "--get", "remote.origin.url")
        address = self._addresses.get(mirror) or stored
        settings = {
            "fetch.negotiationAlgorithm": "noop",
            f"url.{address}.insteadOf": "direct:",
            "url.refused://.insteadOf": stored,
        }
        stdin = "".join(f"{blob}\n" for blob in blobs).encode()
        with explained(f"fetch {len(blobs)} files of {_name(mirror)}", address or "its origin"):
            env = self._environment("", settings)
            run_git(mirror, "fetch", *_FETCH, "--stdin", "direct:", stdin=stdin, env=env)

    def _git(self, mirror: Path, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> bytes:
        """Runs git on a mirror. CalledProcessError is git's answer; that something could not be read or fetched is an
        error of our tree. Contents that nobody thought of are fetched here, and git is run again."""
        tried: set[str] = set()
        while True:
            try:
                return run_git(mirror, *args, stdin=stdin, env=env)
            except subprocess.CalledProcessError as error:
                if not is_unanswered(error):
                    raise
                missing = set(_OBJECT.findall(words_of(error))) - tried if is_partial(mirror) else set()
                if not missing:
                    remedy = f"if objects are missing in {mirror}, delete that folder and run again"
                    with explained(f"read what {_name(mirror)} holds", self._addresses.get(mirror, ""), remedy):
                        raise
                tried |= missing
                self._fetch_blobs(mirror, sorted(missing))
            except subprocess.TimeoutExpired as error:
                message = f"git {args[0]} took longer than {error.timeout:.0f} s in {mirror}; is the disk busy?"
                raise InfrastructureError(message) from error

    # ------------------------------------------------------------ cloning and fetching, under the lock

    def _clone(self, url: str, path: Path, lock: int) -> None:
        part = path.with_name(f".part-{path.name}")
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed: the lock is ours
        part.mkdir()
        try:
            run_git(part, "init", "--quiet", "--bare", "--template=", "--initial-branch=main")
            (part / "info").mkdir(exist_ok=True)
            (part / "info" / "attributes").write_text(ATTRIBUTES)
            if self._is_smart(part, url, lock):
                for key, value in _SETTINGS.items():
                    run_git(part, "config", key, value)
            self._fetch(part, url, lock)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _is_at(self, path: Path, url: str) -> bool:
        """Whether the mirror stands and fetches from `url`. One without an address keeps the one it had."""
        if not path.exists():
            return False
        if not url or self._addresses.get(path) == url:
            return True
        return _answer(path, "config", "--get", "remote.origin.url") == without_password(url)

    def _fetch(self, path: Path, url: str, lock: int) -> None:
        _point(path, url)
        self._fetch_from(path, url, "--prune", "origin", *_REFSPECS, lock=lock)
        answer = run_git(path, "ls-remote", "--symref", "origin", "HEAD", env=self._environment(url), keep_open=(lock,))
        if found := re.match(r"ref: (refs/heads/\S+)\tHEAD", answer.decode(errors="replace")):
            run_git(path, "symbolic-ref", "HEAD", found[1])
        (path / "fetched").touch()

    def _is_smart(self, path: Path, url: str, lock: int) -> bool:
        """Whether git itself answers there, so that it can filter, and no web server with files or a page of its own:
        git tells its packets only then."""
        env = self._environment(url) | {"GIT_TRACE_PACKET": str(path / "packets")}
        answer = run_git(path, "ls-remote", url, "HEAD", env=env, keep_open=(lock,))
        trace = path / "packets"
        is_smart = trace.exists() and trace.stat().st_size > 0
        trace.unlink(missing_ok=True)
        if not is_smart and not answer:
            raise Transient(f"{without_password(url)} of {_name(path)} answers with something that is not git's", 60)
        return is_smart

    def _fetch_commits(self, path: Path, url: str, commits: Sequence[str], lock: int) -> None:
        """In one request if the server has them all. Those it does not name as lost are asked for again."""
        wanted = list(commits)
        while wanted:
            try:
                stdin = "".join(f"{commit}\n" for commit in wanted).encode()
                self._fetch_from(path, url, "--stdin", "origin", lock=lock, stdin=stdin)
            except subprocess.CalledProcessError as error:
                if b"unadvertised object" in error.stderr:  # served as plain files: only what has a name
                    self._fetch_from(path, url, "origin", _PULL_HEADS, lock=lock)
                    return
                if not is_lost(error):
                    raise
                left = [commit for commit in wanted if commit not in words_of(error)]
                if len(left) == len(wanted) > 1:  # it does not say which: each half alone
                    middle = len(wanted) // 2
                    self._fetch_commits(path, url, wanted[:middle], lock)
                    left = wanted[middle:]
                wanted = left if len(left) < len(wanted) else []
            else:
                return

    def _fetch_from(self, path: Path, url: str, *args: str, lock: int, stdin: bytes = b"") -> None:
        if _answer(path, "config", "--get", "remote.origin.promisor") and not self._is_smart(path, url, lock):
            raise Transient(
                f"{without_password(url)} of {_name(path)} answers with something that is not git's; tried later", 60
            )
        run_git(path, "fetch", *_FETCH, *args, stdin=stdin, env=self._environment(url), keep_open=(lock,))

    def _environment(self, url: str, settings: dict[str, str] | None = None) -> dict[str, str]:
        """What lets git fetch, for this one command only: a URL, an argument or a config file would show secrets."""
        known = {**_PATIENCE, **(settings or {})}
        if without_password(url) != url:
            known[f"url.{url}.insteadOf"] = without_password(url)
        if self._token:
            credentials = base64.b64encode(f"x-access-token:{self._token}".encode()).decode()
            ours = urlsplit(self._api_url)
            hosts = {f"https://{(ours.hostname or '').removeprefix('api.')}/", f"{ours.scheme}://{ours.netloc}/"}
            known |= {f"http.{host}.extraHeader": f"Authorization: Basic {credentials}" for host in sorted(hosts)}
        return settings_environment(known)


def is_partial(mirror: Path) -> bool:
    """Whether blobs may be missing: an old mirror has them all."""
    return any((mirror / "objects" / "pack").glob("*.promisor"))


def _point(mirror: Path, url: str) -> None:
    """Has `origin` be `url`, without user and password; first removes what killed processes left."""
    _clear(mirror)
    if url:
        run_git(mirror, "config", "--replace-all", "remote.origin.url", without_password(url))


def _answer(folder: Path, *args: str) -> str:
    try:
        return run_git(folder, *args).decode(errors="replace").strip()
    except subprocess.CalledProcessError:
        return ""


def _name(mirror: Path) -> str:
    return mirror.stem.removeprefix(".part-").replace("+", "/", 1)


def _age_s(mirror: Path) -> float:
    stamp = mirror / "fetched"
    return time.time() - stamp.stat().st_mtime if stamp.exists() else float("inf")


def _clear(mirror: Path) -> None:
    """Removes what git processes left that were killed: their lock files, which would stop every later one, and
    half-received packs. Readers fetch blobs without our lock, so young packs are somebody's."""
    for pattern in ("*.lock", "refs/**/*.lock", "objects/info/**/*.lock"):
        for stale in mirror.glob(pattern):
            stale.unlink(missing_ok=True)
    for pack in (mirror / "objects" / "pack").glob("tmp_*"):
        if time.time() - pack.stat().st_mtime > 2 * TIMEOUT_S:
            pack.unlink(missing_ok=True)


@contextmanager
def _locked(mirror: Path) -> Iterator[int]:
    """One process at a time clones or fetches a mirror: two at once would break over each other's ref locks. Gives
    the open lock, for git to hold too."""
    mirror.parent.mkdir(parents=True, exist_ok=True)
    with mirror.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()
