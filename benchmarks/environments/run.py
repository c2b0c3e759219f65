"""What does an environment cost, and how many candidates get one that shows the fix? One property: every way runs on
the same candidates in one run, in turns, so that the machine's load falls on all alike.

    python -m benchmarks.environments.run --pulls FILE --mirrors DIR --folder DIR --rows FILE [options]
    python -m benchmarks.environments.report FILE [--json]

FILE of --pulls holds one known pull request a line (instance_id, repo, created_at, base_sha, head_sha, merge_sha); DIR
of --mirrors holds owner+name/repo. --folder is for caches. --rows gets a JSON line for each candidate and way, and what
is in it already is not measured again: start the same command again after an interruption. `ours`, `baselines` and
`ladder` say what the ways are. --ways times measures them; --ways yield tells how many candidates show their fix, in as
little time as can be: next, P by uv, then the ladder. --ways next is the first of these alone, for the disk that many
candidates take. They can run at once, one of them with --last, and need not cover the same candidates. --until HH:MM
(UTC) begins nothing after that time. --without P leaves out a slow way that no aim asks for.
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.environments import baselines, ours
from benchmarks.environments.baselines import BY_UV
from benchmarks.environments.choice import as_candidate, ordered, read_pulls
from benchmarks.environments.ladder import DATED, ladder
from benchmarks.environments.measuring import INSIDE
from benchmarks.environments.rows import Row, Rows
from swefactory.checkouts import Checkouts
from swefactory.stages.environments import EnvironmentInput

_log = logging.getLogger("environments")


@dataclass(frozen=True)
class Group:
    """Ways that are measured one after the other; done when the row of `last` is there."""

    last: str
    run: Callable[[EnvironmentInput], Iterator[Row]]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pulls", type=Path, required=True)
    options.add_argument("--mirrors", type=Path, required=True)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--rows", type=Path, required=True)
    options.add_argument("--seed", default="2026")
    options.add_argument("-n", type=int, default=66, help="candidates")
    options.add_argument("--ways", choices=("times", "yield", "next"), default="times")
    options.add_argument("--skip", type=int, default=0, metavar="N", help="the first N candidates come last")
    options.add_argument("--last", action="store_true", help="the last candidates first")
    options.add_argument("--until", default="", metavar="HH:MM")
    options.add_argument("--without", choices=("P", "A", "docker reused"), nargs="*", default=[])
    args = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    INSIDE.join()
    folder = args.folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    kept, store = ours.kept_namespace(folder)
    subjects = candidates(kept.checkouts, args)
    if args.ways == "times":
        baselines.prepare(folder)
    subjects = subjects[args.skip :] + subjects[: args.skip]
    rows = Rows(args.rows)
    next_ = Group("namespace next", lambda subject: ours.namespace_next(kept, store, subject))
    by_uv = Group(BY_UV, lambda subject: baselines.pip(folder, subject, BY_UV))
    rungs = Group(DATED, lambda subject: ladder(kept, subject, _ours(rows, subject)))
    timed = [
        next_,
        Group("P", lambda subject: baselines.pip(folder, subject, "P")),
        Group("namespace cold", lambda subject: ours.namespace_cold(folder, subject)),
        Group("namespace reused", lambda subject: ours.namespace_again(kept, store, subject)),
        Group("A", lambda subject: baselines.pip(folder, subject, "A")),
        Group("docker reused", lambda subject: ours.docker(folder, subject)),
    ]
    timed = [group for group in timed if group.last not in args.without]
    passes = {"times": [timed], "yield": [[next_, by_uv], [rungs]], "next": [[next_]]}
    try:
        for groups in passes[args.ways]:
            _measure(rows, subjects[::-1] if args.last else subjects, groups, args.until)
    finally:
        if args.ways == "times":  # the other run has none that is worth keeping, and must not take this one's
            ours.remove_build_records()
    return 0


def candidates(checkouts: Checkouts, args: argparse.Namespace) -> list[EnvironmentInput]:
    """The first n of the order that are candidates at all; kept beside the caches: reading them takes a while."""
    kept = args.folder / f"candidates-{args.seed}-{args.n}.json"
    if kept.exists():
        return [
            EnvironmentInput(**{**row, "test_files": tuple(row["test_files"])}) for row in json.loads(kept.read_text())
        ]
    found: list[EnvironmentInput] = []
    for pull in ordered(read_pulls(args.pulls), args.seed):
        if len(found) == args.n:
            break
        if (subject := as_candidate(checkouts, args.mirrors, pull)) is not None:
            found.append(subject)
    part = kept.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps([asdict(subject) for subject in found]))
    part.rename(kept)
    return found


def _measure(rows: Rows, subjects: Sequence[EnvironmentInput], groups: Sequence[Group], until: str) -> None:
    for number, subject in enumerate(subjects):
        done = {row.way for row in rows if row.instance_id == subject.instance_id and not row.is_fault}
        turn = number % len(groups)
        for group in (*groups[turn:], *groups[:turn]):
            if group.last in done:
                continue
            if until and datetime.now(UTC).strftime("%H:%M") >= until:
                _log.info("it is %s: no more is begun", until)
                return
            for row in group.run(subject):
                rows.add(row)
                said = row.step or row.verdict or f"{row.n_fail_to_pass} FAIL_TO_PASS"
                _log.info("%d %s: %s: %s in %.1f s", number + 1, row.instance_id, row.way, said, row.total_s)


def _ours(rows: Rows, subject: EnvironmentInput) -> Row | None:
    found = [row for row in rows if row.instance_id == subject.instance_id and row.way == "namespace next"]
    return found[-1] if found else None


if __name__ == "__main__":
    raise SystemExit(main())
