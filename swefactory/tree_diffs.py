"""What changed in a sandbox's tree since it was opened: the model_patch, taken by git inside the sandbox.

    INPUTS/base.git   a git folder of ours that knows the tree as it was; read-only inside, one tree, no history
    RESULTS/diff-…    index and new objects; made for one diff

One property: nothing an agent wrote decides how the diff is taken. Its .git, with configuration, hooks, filters and
commits, is not looked at; line endings and attributes are off, so that the diff is of the bytes. The host runs git
before the agent has run only.
"""

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swefactory.checkouts import run_git
from swefactory.errors import InfrastructureError
from swefactory.sandbox_protocols import CHECKOUT_DIR, INPUTS_DIR, RESULTS_DIR, CommandResult, Sandbox

MAX_PATCH_BYTES = 4 * 2**20
_TIMEOUT_S = 300
_GIT_FOLDER = "base.git"
_BINARY_ATTRIBUTES = "binary.attributes"
_ATTRIBUTES = "* -text -filter -ident -working-tree-encoding\n"
# What running code and tests leaves behind. Only files that the tree did not hold are ignored.
_LITTER = (
    "__pycache__/", "*.pyc", "*.pyo", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/", ".tox/",
    ".nox/", "*.egg-info/", ".eggs/", ".coverage", ".coverage.*", ".swefactory-*",
)  # fmt: skip
_QUIET = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.safecrlf=false")


@dataclass(frozen=True)
class TreeDiff:
    """A git diff, and what a reader should know of it. `text` holds no NUL and no lone surrogate."""

    text: str
    note: str = ""


def remember(checkout: Path, inputs: Path, litter: Sequence[str] = ()) -> str:
    """Writes into `inputs` what `take` needs to compare with the tree at `checkout`; returns the tree's id. `litter`
    are further patterns of what is left behind there, as in a .gitignore."""
    run_git(inputs, "init", "--quiet", "--template=", "--initial-branch=main", ".")
    git_folder = inputs / _GIT_FOLDER
    (inputs / ".git").rename(git_folder)
    (git_folder / "info").mkdir(exist_ok=True)
    (git_folder / "info" / "attributes").write_text(_ATTRIBUTES)
    (git_folder / "info" / "exclude").write_text("\n".join((*_LITTER, *litter, "")))
    (inputs / _BINARY_ATTRIBUTES).write_text("* -diff\n")
    where = (f"--git-dir={git_folder}", f"--work-tree={checkout}")
    run_git(checkout, *where, "add", "--all", "--force")
    tree_id = run_git(checkout, *where, "write-tree").decode().strip()
    (git_folder / "index").unlink(missing_ok=True)
    shutil.rmtree(git_folder / "logs", ignore_errors=True)
    return tree_id


def take(sandbox: Sandbox, tree_id: str) -> TreeDiff:
    """The change since `remember`. A tree that git cannot read any more yields no diff and a note: the agent did
    that. Raises InfrastructureError when the sandbox runs nothing any more."""
    folder = f"{RESULTS_DIR}/diff-{secrets.token_hex(8)}"
    made = sandbox.run(["mkdir", "-p", f"{folder}/objects"], timeout_s=_TIMEOUT_S, cwd="/")
    if made.exit_code != 0:
        return _nothing(sandbox, made)
    git = _Git(sandbox, folder)
    read = git.run("read-tree", tree_id)
    if read.exit_code != 0:
        return _nothing(sandbox, read)
    added = git.run("add", "--all", "--ignore-errors", "--", ".", *git.nested_repositories())
    if added.exit_code is None:
        return _nothing(sandbox, added)
    return _read(sandbox, git, tree_id, f"{folder}/patch")


class _Git:
    """git inside the sandbox, on our own git folder and the agent's tree."""

    def __init__(self, sandbox: Sandbox, folder: str) -> None:
        self._sandbox = sandbox
        self._env = {
            "GIT_DIR": f"{INPUTS_DIR}/{_GIT_FOLDER}",
            "GIT_WORK_TREE": CHECKOUT_DIR,
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": f"{folder}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f"{INPUTS_DIR}/{_GIT_FOLDER}/objects",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
        }

    def run(self, *arguments: str, options: Sequence[str] = ()) -> CommandResult:
        return self._sandbox.run(["git", *_QUIET, *options, *arguments], timeout_s=_TIMEOUT_S, env=self._env)

    def nested_repositories(self) -> list[str]:
        """Pathspecs that leave out folders with a .git of their own: git would store a bare link, or refuse."""
        command = ["find", CHECKOUT_DIR, "-mindepth", "2", "-name", ".git", "-prune", "-printf", r"%P\0"]
        found = self._sandbox.run(command, timeout_s=_TIMEOUT_S)
        paths = sorted(path for path in found.output.decode("utf-8", "surrogateescape").split("\0") if "/" in path)
        return [f":(exclude,literal){path.rpartition('/')[0]}" for path in paths if path.endswith("/.git")]


def _read(sandbox: Sandbox, git: _Git, tree_id: str, path: str) -> TreeDiff:
    """As text where it is UTF-8; otherwise every file as git's binary form, which is ASCII."""
    for options in ((), ("-c", f"core.attributesFile={INPUTS_DIR}/{_BINARY_ATTRIBUTES}")):
        ran = git.run(
            "diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
            "--src-prefix=a/", "--dst-prefix=b/", f"--output={path}", tree_id, options=options,
        )  # fmt: skip
        if ran.exit_code != 0:
            return _nothing(sandbox, ran)
        try:
            content = sandbox.read(path, MAX_PATCH_BYTES)
        except (FileNotFoundError, InfrastructureError) as error:
            return _nothing(sandbox, ran, str(error))
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return TreeDiff(text)
    return TreeDiff("", "the diff holds bytes that are neither text nor marked binary; it was dropped")


def _nothing(sandbox: Sandbox, ran: CommandResult, said: str = "") -> TreeDiff:
    alive = sandbox.run(["true"], timeout_s=_TIMEOUT_S, cwd="/")
    said = said or ran.output.decode(errors="replace").strip()[-300:] or "git gave up"
    if alive.exit_code != 0:
        raise InfrastructureError(f"the sandbox no longer runs commands, so its diff cannot be taken: {said}")
    return TreeDiff("", f"no diff could be taken of the tree: {said}")
