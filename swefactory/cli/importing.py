"""`swefactory import`: instances that others published, into the catalog."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from swefactory.benchmark_lists import load_lists
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import console, show
from swefactory.errors import EXIT_FINDINGS, UsageError
from swefactory.instance_imports import Fate, Imported, ImportTerms, import_instances

CLONE_FROM = "https://github.com/{repo}.git"


def import_(
    file: Annotated[Path, typer.Argument(help="JSONL, an instance a line, with SWE-bench's field names; - for stdin.")],
    add_repositories: Annotated[
        bool, typer.Option("--add-repositories", help="Add repositories that the catalog lacks, without a crawl.")
    ] = False,
    clone_from: Annotated[
        str, typer.Option("--clone-from", help="Where those are cloned from; {repo} stands for owner/name.")
    ] = CLONE_FROM,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what becomes of each line, store nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import published instances; what cannot be is a finding by line, and the command ends with 1.

    An imported instance gets an environment and a validation like a mined one, and is held to the FAIL_TO_PASS it came
    with. FAIL_TO_PASS and PASS_TO_PASS may be lists or JSON texts.

    Examples: `swefactory import swe-gym.jsonl --add-repositories --dry-run` ·
    `swefactory import exports/swebench/swebench.jsonl`
    """
    current = settings()
    terms = ImportTerms(
        source=file.name,
        lists=load_lists(current.benchmarks),
        clone_from=clone_from if add_repositories else "",
        max_attempts=current.max_attempts,
        dry_run=dry_run,
    )
    counts: Counter[Fate] = Counter()
    told: list[Imported] = []
    with catalog(current) as engine, _opened(file) as lines:
        for each in import_instances(engine, lines, terms):
            counts[each.fate] += 1
            if each.why or as_json:
                told.append(each)
    rows = [[each.line, each.instance_id, each.fate.value, each.why] for each in told]
    if rows or as_json:
        show(["line", "instance_id", "fate", "why"], rows, as_json=as_json)
    if not as_json:
        said = ", ".join(f"{counts[fate]} {fate.value}" for fate in Fate)
        console.print(f"{said}{' (dry run: nothing is stored)' if dry_run else ''}")
        if counts[Fate.ADDED] and not dry_run:
            console.print("next: swefactory run")
    if counts[Fate.REFUSED]:
        raise typer.Exit(EXIT_FINDINGS)


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    with opened:
        yield opened
