"""Plain trees: copied, patched, sealed and compared with real git. One property: never runs repository code.

A tree holds the bytes of a commit: no filter (LFS among them) and no end-of-line conversion touches them.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from swefactory.errors import InfrastructureError
from swefactory.git_commands import ATTRIBUTES, last_line, run_git


def copy_tree(source: Path, target: Path) -> None:
    """Copies a tree with links kept as links; copy-on-write where the file system can."""
    command = ["cp", "-a", "--reflink=auto", f"{source}/.", str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    except subprocess.CalledProcessError as error:
        raise InfrastructureError(f"cannot copy {source} to {target}: {last_line(error.stderr)}") from error


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
    (folder / ".git" / "info" / "attributes").write_text(ATTRIBUTES)
    run_git(folder, "add", "--all", "--force")
    run_git(folder, "commit", "--quiet", "--no-verify", "--allow-empty", "--message", "base")
    shutil.rmtree(folder / ".git" / "logs", ignore_errors=True)
    return run_git(folder, "rev-parse", "HEAD").decode().strip()


def diff(folder: Path, paths: Sequence[str] = ()) -> str:
    """The change of a sealed tree against its one commit, untracked files, binary and mode changes included. Only
    for a tree whose .git is still the one that `seal` made: a stranger's .git could name programs to run."""
    run_git(folder, "add", "--all")
    return run_git(folder, "diff", "--cached", "--binary", "HEAD", "--", *paths).decode("utf-8", "surrogateescape")


def unpack(mirror: Path, commit: str, part: Path) -> Path:
    """The bytes of the commit, in a new folder below `part`: not `git archive`, which obeys the repository's
    export-ignore and export-subst. Raises CalledProcessError."""
    tree = part / "tree"
    tree.mkdir()
    env = {
        "GIT_DIR": str(mirror.resolve()),
        "GIT_WORK_TREE": str(tree.resolve()),
        "GIT_INDEX_FILE": str(part / "index"),
    }
    run_git(tree, "read-tree", commit, env=env)
    run_git(tree, "checkout-index", "--all", "--quiet", env=env)
    return tree
