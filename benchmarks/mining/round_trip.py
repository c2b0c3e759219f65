"""Do patch and test_patch give what was merged, on real pull requests? One property: mirrors are only read.

    python benchmarks/mining/round_trip.py --mirror DIR --pulls FILE [--show]

DIR/owner+name/repo are bare mirrors with refs/pull/*/head; FILE holds one JSON object a line with instance_id, repo,
base_sha, head_sha and merge_sha. Each half is applied to the base commit, in both orders, in an index of its own; the
tree must be the base's but for the touched files, and those must be the merge commit's (or else the head's).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from swefactory.checkouts import Checkouts, run_git
from swefactory.errors import Rejected
from swefactory.patches import PatchUnreadable
from swefactory.pull_diffs import PullDiff, pull_diff
from swefactory.pull_ranges import PullCommits, PullRange, pull_range


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mirror", type=Path, required=True)
    options.add_argument("--pulls", type=Path, required=True)
    options.add_argument("--show", action="store_true", help="a line for each pull request")
    args = options.parse_args()
    counts: Counter[str] = Counter()
    started = time.monotonic()
    for line in args.pulls.read_text().splitlines():
        verdict, detail = _judge(args.mirror, json.loads(line))
        counts[verdict] += 1
        if args.show or not verdict.startswith("as merged"):
            print(f"{verdict}: {detail}")
    for verdict, n in counts.most_common():
        print(f"{n:6} {verdict}")
    print(f"{sum(counts.values())} pull requests in {time.monotonic() - started:.0f} s")
    return int(any(verdict.startswith("WRONG") for verdict in counts))


def _judge(mirrors: Path, pull: dict[str, str]) -> tuple[str, str]:
    mirror = mirrors / pull["repo"].replace("/", "+") / "repo"
    commits = PullCommits(pull["instance_id"], pull["base_sha"] or "", pull["head_sha"] or "", pull["merge_sha"] or "")
    with tempfile.TemporaryDirectory() as folder:
        checkouts = Checkouts(Path(folder), Path(folder))
        try:
            found = pull_range(checkouts, mirror, commits)
            diff = pull_diff(checkouts, mirror, found.start, found.end)
        except (Rejected, PatchUnreadable) as error:
            return f"no diff ({type(error).__name__})", f"{commits.name}: {error}"
        return _compared(mirror, commits, found, diff, Path(folder))


def _compared(mirror: Path, pull: PullCommits, found: PullRange, diff: PullDiff, folder: Path) -> tuple[str, str]:
    base = "base.sha" if found.base_commit == pull.base else "another base commit"
    kind = "own diff" if found.end == pull.head else "diff of the merge commit"
    detail = f"{pull.name}: {found}, tests {diff.test_files}"
    halves = (diff.split.patch, diff.split.test_patch)
    trees = {_applied(mirror, found.base_commit, order, folder) for order in (halves, halves[::-1])}
    if len(trees) != 1 or None in trees:
        return "WRONG, does not apply", detail
    [tree] = trees
    touched = {path for change in diff.split.files for path in change.paths}
    if not _changed(mirror, folder, found.base_commit, tree or "") <= touched:
        return "WRONG, other files changed", detail
    if found.result is None:
        return f"nothing to compare with; {kind} on {base}", detail
    if differing := _changed(mirror, folder, tree or "", found.result) & touched:
        return "WRONG, differs", f"{detail}: {sorted(differing)}"
    told = "as merged" if found.result == pull.merge else "as the head is"
    return f"{told}; {kind} on {base}", detail


def _environment(mirror: Path, folder: Path) -> dict[str, str]:
    (folder / "objects").mkdir(exist_ok=True)
    return {
        "GIT_INDEX_FILE": f"{folder}/index",
        "GIT_OBJECT_DIRECTORY": f"{folder}/objects",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((mirror / "objects").resolve()),
    }


def _applied(mirror: Path, base: str, patches: tuple[str, ...], folder: Path) -> str | None:
    env = _environment(mirror, folder)
    run_git(mirror, "read-tree", base, env=env)
    for patch in filter(None, patches):
        try:
            run_git(mirror, "apply", "--cached", "--whitespace=nowarn", "-", stdin=patch.encode(), env=env)
        except subprocess.CalledProcessError:
            return None
    return run_git(mirror, "write-tree", env=env).decode().strip()


def _changed(mirror: Path, folder: Path, old: str, new: str) -> set[str]:
    command = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", old, new)
    found = run_git(mirror, *command, env=_environment(mirror, folder))
    return set(found.decode("utf-8", "surrogateescape").split("\0")[:-1])


if __name__ == "__main__":
    sys.exit(main())
