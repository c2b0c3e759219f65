"""`swefactory repo discover`: find repositories and queue them. One property: what was found until an error, a limit
or Ctrl-C is kept, and the same command again goes on from there.

Three ways, one a call: GitHub's search (the default), packages by their index, hour files of GH Archive.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from glob import glob
from itertools import batched
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import InvalidRequirement, Requirement
from rich.markup import escape
from sqlalchemy import Engine

from db.engine import session
from swefactory.cli.context import AsJson, catalog, settings
from swefactory.cli.output import console, errors, show
from swefactory.config import Settings
from swefactory.discovery import Finding, Found, Verdict, take_in
from swefactory.errors import InfrastructureError, Transient, UsageError
from swefactory.package_indexes import configured_index
from swefactory.stages.crawl import filters_of
from swefactory.wiring import make_github_client

_DAY = ["%Y-%m-%d"]
_SEARCH_ONLY = (
    "language", "min_stars", "max_stars", "pushed_after", "created_after", "created_before", "topics", "license_id",
    "patience_s",
)  # fmt: skip
_AT_ONCE = 500  # repositories a transaction


def discover(
    context: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="More files after --archive, as a shell makes them of a pattern.")
    ] = None,
    language: Annotated[str, typer.Option(help="Mostly in this language; '' for any.")] = "python",
    min_stars: Annotated[int | None, typer.Option(min=0, help="Default SWEFACTORY_MIN_STARS.")] = None,
    max_stars: Annotated[int | None, typer.Option(min=0)] = None,
    pushed_after: Annotated[
        datetime | None, typer.Option(formats=_DAY, help="Pushed to on this day or later; default any.")
    ] = None,
    created_after: Annotated[datetime | None, typer.Option(formats=_DAY, help="Made on this day or later.")] = None,
    created_before: Annotated[datetime | None, typer.Option(formats=_DAY, help="Made on this day or before.")] = None,
    topics: Annotated[list[str] | None, typer.Option("--topic", help="With this topic (repeatable: all).")] = None,
    license_id: Annotated[str, typer.Option("--license", help="Under this licence, SPDX.")] = "",
    packages: Annotated[
        list[str] | None, typer.Option("--packages", help="Names of packages, ','-separated; not GitHub's search.")
    ] = None,
    packages_file: Annotated[Path | None, typer.Option(help="A file with one package a line.")] = None,
    archive: Annotated[
        list[str] | None, typer.Option(help="GH Archive's hour files (.json.gz, .json), or a pattern in quotes.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="N repositories; up to 1,000 of a search have the most stars."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be queued, and queue nothing.")] = False,
    patience_s: Annotated[
        float, typer.Option("--patience", min=0, help="Seconds to wait for a limit at most, each time.")
    ] = 120,
    as_json: AsJson = False,
) -> None:
    """Find repositories and queue their crawls; what the filters (settings) refuse is kept with the reason.

    Searches GitHub, past its 1,000 results a query; or asks the package index of uv or pip (SWEFACTORY_INDEX_URL) where
    packages are developed; or reads which pull requests were closed from files of GH Archive. Run again, it goes on.

    Examples: `swefactory repo discover --min-stars 500 --pushed-after 2025-01-01 --dry-run` ·
    `swefactory repo discover --topic cli --license mit --limit 200` ·
    `swefactory repo discover --packages click,attrs` · `swefactory repo discover --packages-file requirements.txt` ·
    `swefactory repo discover --archive 2024-05-01-*.json.gz`
    """
    names = [*_split(packages), *_packages_in(packages_file)]
    paths = _expanded(archive, files)
    _refuse_mixtures(context, names, paths)
    current = settings()
    wanted = _Search(
        language, current.min_stars if min_stars is None else min_stars, max_stars, _day(pushed_after),
        _day(created_after), _day(created_before), tuple(topics or ()), license_id, patience_s,
    )  # fmt: skip
    with catalog(current) as engine, _said() as say:
        if names:
            batches = _by_packages(current, names[:limit], say)
        elif paths:
            batches = _by_archive(paths, limit, say)
        else:
            batches = _by_search(current, engine, wanted, limit, say)
        report = _taken_in(engine, current, batches, dry_run=dry_run)
    _print(report, dry_run=dry_run, as_json=as_json)


@dataclass(frozen=True)
class _Search:
    language: str
    min_stars: int
    max_stars: int | None
    pushed_after: date | None
    created_after: date | None
    created_before: date | None
    topics: tuple[str, ...]
    license_id: str
    patience_s: float


@dataclass(frozen=True)
class _Batch:
    """Some that were found, with what to show of each beside its verdict; `nowhere` led to none; `notes` are said."""

    found: Sequence[tuple[Found, dict[str, object]]] = ()
    nowhere: Sequence[tuple[str, dict[str, object]]] = ()  # why, and what was looked up
    notes: Sequence[str] = ()
    is_fault: bool = False


@dataclass
class _Report:
    rows: list[dict[str, object]] = field(default_factory=list)
    findings: dict[str, Finding] = field(default_factory=dict)  # by name in lower case
    notes: list[str] = field(default_factory=list)
    fault: str = ""


type _Say = Callable[[str], None]


def _by_search(current: Settings, engine: Engine, wanted: _Search, limit: int | None, say: _Say) -> Iterator[_Batch]:
    from swefactory.sources.github_search import RepositorySearch, SearchQuery
    from swefactory.sources.search import FIRST_DAY, Slice

    whole = Slice(
        wanted.created_after or FIRST_DAY,
        wanted.created_before or datetime.now(UTC).date(),
        wanted.min_stars,
        wanted.max_stars,
    )
    if whole.first > whole.last or (whole.max_stars is not None and whole.max_stars < whole.min_stars):
        raise UsageError(f"nothing can match {whole}: the first of each two is greater; no repository was queued")
    query = SearchQuery(wanted.language, wanted.pushed_after, wanted.topics, wanted.license_id, current.forks)
    search = RepositorySearch(make_github_client(current, engine), query, _pause(wanted.patience_s, say))
    n_read = 0
    for part in search.pages(whole, limit):
        n_read += len(part.answer.records)
        say(f"{n_read} of {search.n_counted} repositories read, {part.slice}")
        found = [
            (Found(one.name, one), {"stars": one.n_stars, "license": one.license, "pushed_at": one.pushed_at})
            for one in part.answer.records
        ]
        yield _Batch(found, notes=[part.cut] if part.cut else [])


def _pause(patience_s: float, say: _Say) -> Callable[[Transient], None]:
    """Waits as long as the error says; raises it when that is too long."""

    def pause(error: Transient) -> None:
        if error.retry_after_s > patience_s:
            raise error
        say(f"{error} (waiting {error.retry_after_s:.0f} s)")
        time.sleep(error.retry_after_s)

    return pause


def _by_packages(current: Settings, names: Sequence[str], say: _Say) -> Iterator[_Batch]:
    from swefactory.sources.package_index import PackageIndex

    address = current.index_url.get_secret_value() or configured_index()
    if not address:
        raise UsageError(
            "no package index is configured here: set SWEFACTORY_INDEX_URL (or UV_DEFAULT_INDEX, PIP_INDEX_URL, or "
            "index-url in a file of pip or uv) to its address, which ends in /simple for most"
        )
    for number, lead in enumerate(PackageIndex(address).leads(names), 1):
        say(f"{number} of {len(names)} packages looked up")
        if lead.repository:
            yield _Batch([(Found(lead.repository), {"package": lead.package, "found_in": lead.says})])
        else:
            yield _Batch(nowhere=[(lead.says, {"package": lead.package})], is_fault=lead.is_fault)


def _by_archive(paths: Sequence[Path], limit: int | None, say: _Say) -> Iterator[_Batch]:
    from swefactory.sources import gh_archive

    notes: list[str] = []

    def read() -> Iterator[gh_archive.ArchiveFile]:
        for number, path in enumerate(paths, 1):
            file = gh_archive.read(path)
            say(f"{number} of {len(paths)} files read, {path.name}: {file.n_lines} lines")
            if file.n_broken:
                notes.append(f"{path}: {file.n_broken} of {file.n_lines} lines are broken and were left out")
            if file.cut:
                notes.append(file.cut)
            yield file

    numbers = gh_archive.merged(read())
    chosen = sorted(numbers, key=lambda name: (-len(numbers[name]), name))[:limit]
    yield _Batch(notes=notes)
    for names in batched(sorted(chosen), _AT_ONCE):
        yield _Batch([(Found(name, numbers=numbers[name]), {"pull_requests": len(numbers[name])}) for name in names])


def _taken_in(engine: Engine, current: Settings, batches: Iterator[_Batch], *, dry_run: bool) -> _Report:
    """Each batch in a transaction of its own. A limit or an outage ends it, with what there is until then."""
    report, filters = _Report(), filters_of(current)
    n_faults = 0
    try:
        for batch in batches:
            with session(engine, writing=not dry_run) as db:
                for found, more in batch.found:
                    key = found.name.lower()
                    if key not in report.findings:
                        report.findings[key] = take_in(
                            db, found, filters, max_attempts=current.max_attempts, dry_run=dry_run
                        )
                    report.rows.append(_row(report.findings[key], more))
            for why, more in batch.nowhere:
                report.rows.append(_row(Finding("", Verdict.NOWHERE, "", why), more))
            report.notes += batch.notes
            n_faults += batch.is_fault
    except Transient as error:
        report.fault = str(error)
    if n_faults:
        report.fault = f"the index did not answer for {n_faults} packages"
    return report


def _row(finding: Finding, more: dict[str, object]) -> dict[str, object]:
    facts = {"repository": finding.name, "verdict": finding.verdict.value, "reason": finding.reason}
    subject = {"package": more.pop("package")} if "package" in more else {}
    return {**subject, **facts, **more, "detail": finding.detail}


def _print(report: _Report, *, dry_run: bool, as_json: bool) -> None:
    """Raises InfrastructureError when something put an end to it."""
    columns = list(dict.fromkeys(name for row in report.rows for name in row))
    nowhere = [row for row in report.rows if row["verdict"] == Verdict.NOWHERE]
    if as_json or dry_run:
        rows = [[row.get(name) for name in columns] for row in report.rows]
        show(columns, rows, as_json=as_json, empty="no repository was found")
    elif nowhere:
        show(["package", "why it leads nowhere"], [[row["package"], row["detail"]] for row in nowhere], as_json=False)
    for note in report.notes:
        errors.print(note, markup=False, soft_wrap=True)
    if not as_json:
        console.print(_summary(report, len(nowhere), dry_run=dry_run), markup=False, soft_wrap=True)
    if report.fault:
        kept = "shown" if dry_run else "kept"
        raise InfrastructureError(
            f"{report.fault}; what was found until then is {kept}, the same command again goes on from there"
        )


def _summary(report: _Report, n_nowhere: int, *, dry_run: bool) -> str:
    verdicts = Counter(finding.verdict for finding in report.findings.values())
    reasons = Counter(finding.reason for finding in report.findings.values() if finding.reason)
    said = f"{len(report.findings)} repositories found: {verdicts[Verdict.QUEUED]} "
    said += f"{'would be queued' if dry_run else 'queued'}, {verdicts[Verdict.KNOWN]} under watch already, "
    said += f"{verdicts[Verdict.REFUSED]} refused"
    if reasons:
        said += f" ({', '.join(f'{reason} {n}' for reason, n in sorted(reasons.items()))})"
    if n_nowhere:
        said += f"; {n_nowhere} packages lead nowhere"
    return said if dry_run or not verdicts[Verdict.QUEUED] else f"{said}\nnext: swefactory run"


@contextmanager
def _said() -> Iterator[_Say]:
    """How far it is: one line that changes on a terminal, a line a change elsewhere, at most one a second."""
    if errors.is_terminal:
        with errors.status("…") as status:
            yield lambda line: status.update(escape(line))
        return
    last = [0.0]

    def say(line: str) -> None:
        if time.monotonic() - last[0] >= 1 or "waiting" in line:
            last[0] = time.monotonic()
            errors.print(line, markup=False, soft_wrap=True)

    yield say


def _refuse_mixtures(context: typer.Context, names: Sequence[str], paths: Sequence[Path]) -> None:
    if names and paths:
        raise UsageError("packages and archives cannot be asked for at once; leave out one of them")
    sources = {name: context.get_parameter_source(name) for name in _SEARCH_ONLY}
    given = [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]
    if given and (names or paths):
        option = given[0].removesuffix("_id").removesuffix("_s").replace("_", "-").replace("topics", "topic")
        raise UsageError(
            f"--{option} is for GitHub's search; here the filters that are settings decide, see the README"
        )


def _split(packages: Sequence[str] | None) -> list[str]:
    names = [name.strip() for text in packages or () for name in text.split(",")]
    return [_package(name, f"--packages {name!r}") for name in names if name]


def _packages_in(path: Path | None) -> list[str]:
    """One a line, as in a requirements file; options and comments say nothing."""
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', '') or 'it is no UTF-8 text'}") from error
    words = [(number, re.sub(r"(^|\s)(#|--hash|\\).*", "", line).strip()) for number, line in enumerate(lines, 1)]
    names = [_package(word, f"{path} line {n}: {word!r}") for n, word in words if word and not word.startswith("-")]
    if not names:
        raise UsageError(f"{path} names no package; write one a line")
    return list(dict.fromkeys(names))


def _package(text: str, where: str) -> str:
    try:
        return Requirement(text).name
    except InvalidRequirement as error:
        raise UsageError(f"{where} is no package's name; nothing was queued") from error


def _expanded(archive: Sequence[str] | None, more: Sequence[Path] | None) -> list[Path]:
    if more and not archive:
        raise UsageError(f"{more[0]}: files are hour files of GH Archive; put --archive in front of them")
    paths: list[Path] = []
    for text in archive or ():
        found = [Path(text)] if Path(text).exists() else [Path(name) for name in sorted(glob(text, recursive=True))]
        if not found:
            raise UsageError(f"no file {text}; download hour files of GH Archive first, then name them")
        paths += found
    return list(dict.fromkeys([*paths, *(more or ())]))


def _day(when: datetime | None) -> date | None:
    return when.date() if when else None
