"""How git is run, and what its failures mean. One property: the same command does the same on every machine.

git gets no user configuration, hooks, replacements or other protocols than http(s), git and file. Its words are
turned into our error tree here, and only here, whether a whole repository or one file's content could not be had.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected, Transient
from swefactory.machine_faults import fault_of_process

ATTRIBUTES = "* -text !eol -ident -filter -working-tree-encoding\n"  # info/attributes wins over .gitattributes
TIMEOUT_S = 1800
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
_OFFLINE = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
_ABSENT = re.compile(
    r"not found|does not exist|does not appear to be a git repository|could not read Username|Authentication failed"
    r"|couldn't find remote ref HEAD|transport '\w+' not allowed",
    re.IGNORECASE,
)
_LOST = re.compile(r"repository corruption on the remote side|not our ref|unadvertised object", re.IGNORECASE)
_LATER = re.compile(
    r"transport 'refused' not allowed"
    r"|could not resolve|connection|timed out|early EOF|hung up|RPC failed|returned error|failed to connect"
    r"|unable to access|expected flush|protocol error|bad line length|invalid server response|unexpected disconnect"
    r"|not valid: is this a git repository|index-pack (?:failed|output)|bad pack header|unable to rewind"
    r"|expected '?(?:packfile|acknowledgments)|remote-curl|curl \d+|error processing (?:acks|shallow|wanted refs)",
    re.IGNORECASE,
)
# What git says when a command broke off because an object was not there and could not be fetched: no answer at all.
_UNREAD = re.compile(
    r"^(?:fatal|error): (?:.*promisor remote|unable to (?:read|access|find)|could not (?:read|fetch)|remote error"
    r"|object |bad (?:object|tree object)|missing |failed to read|loose object|packfile|cannot read|read of|"
    r"the remote end|.*(?:returned error|not valid: is this|'http\S+' not found)|expected |protocol error|early EOF)",
    re.MULTILINE,
)


def git_environment(**more: str) -> dict[str, str]:
    """The environment git runs in: this process's without its GIT_* (a hook's GIT_DIR would misdirect git)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    tls = {name: value for name, value in os.environ.items() if name.startswith("GIT_SSL_")}
    return {**kept, **tls, **_GIT_ENV, **more}


def settings_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings of git for one command, by its environment: an argument or a file would show them to others."""
    found = {"GIT_CONFIG_COUNT": str(len(settings))}
    for i, (key, value) in enumerate(settings.items()):
        found |= {f"GIT_CONFIG_KEY_{i}": key, f"GIT_CONFIG_VALUE_{i}": value}
    return found


def run_git(
    folder: Path,
    *args: str,
    stdin: bytes = b"",
    timeout_s: float = TIMEOUT_S,
    env: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
) -> bytes:
    """Runs git in `folder`, never in a repository above it; returns stdout. Raises CalledProcessError, which is git's
    answer, and InfrastructureError where it gave none: it was killed, the disk is full. `keep_open` are open files that
    git inherits. Commands that are not for fetching reach no other repository: a mirror's missing contents come by
    Mirrors.prefetch, never by git on its own, which has no authorisation here and no end there."""
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0", *args]
    above = str(folder.resolve().parent)
    reach = {} if {"fetch", "ls-remote", "clone", "push"} & set(args) else _OFFLINE
    surroundings = git_environment(GIT_CEILING_DIRECTORIES=above, **(reach | dict(env or {})))
    try:
        return subprocess.run(
            command, cwd=folder, input=stdin, check=True, capture_output=True, timeout=timeout_s, env=surroundings,
            pass_fds=keep_open,
        ).stdout  # fmt: skip
    except subprocess.CalledProcessError as error:
        if why := fault_of_process(error):
            raise InfrastructureError(f"git {args[0]} in {folder.name} gave no answer: {why}; tried again") from error
        raise


def is_lost(error: subprocess.CalledProcessError) -> bool:
    """The other side has lost objects: asking again gives the same, though it looks like a lost connection."""
    return bool(_LOST.search(words_of(error)))


def is_unanswered(error: subprocess.CalledProcessError) -> bool:
    """git broke off for want of an object: its exit code is not the "no" that it seems."""
    return bool(_UNREAD.search(words_of(error)))


def words_of(error: subprocess.CalledProcessError) -> str:
    """What git printed as its complaint."""
    return bytes(error.stderr or b"").decode(errors="replace")


@contextmanager
def explained(
    doing: str, clone_url: str, remedy: str = "see that the disk has room and that git can write there"
) -> Iterator[None]:
    """Turns git's failures while `doing` ("mirror acme/tool") into our error tree."""
    where = without_password(clone_url) or "nowhere (it has no clone address)"
    try:
        yield
    except subprocess.TimeoutExpired as error:
        message = f"git took longer than {error.timeout:.0f} s to {doing} from {where}; tried later"
        raise Transient(message, 300) from error
    except subprocess.CalledProcessError as error:
        words = words_of(error)
        message = f"cannot {doing} from {where}: {_first_fatal(words)}"
        if _LATER.search(words) and not is_lost(error) and not re.search(r"repository '.*' not found", words):
            raise Transient(f"{message}; tried again in a minute, check the network if it stays so", 60) from error
        if _ABSENT.search(words):
            raise Rejected(RejectReason.REPOSITORY_NOT_FOUND, f"{message}; check the address and the rights") from error
        raise InfrastructureError(f"{message}; {remedy}") from error


def last_line(stderr: bytes) -> str:
    """The last words of a complaint, without passwords."""
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return without_password(lines[-1].strip()) if lines else "git said nothing"


def without_password(text: str) -> str:
    """`text` with the user and password of each address left out."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def _first_fatal(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    fatal = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0] if lines else "git failed")
    return without_password(fatal)
