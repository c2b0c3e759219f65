"""What does mining a repository cost, and how much of what is known is found? One property: nothing outside a temporary
home is written.

    python benchmarks/mining/crawl.py --github-url URL --candidates FILE [--limit N] [--only-known] [--json] OWNER/NAME…

Crawls each repository twice and runs the candidate stage in between. FILE holds one known pull request a line: repo,
pr_number, base_sha, merge_kind and linked_issues (number, how). Each that is not agreed with is listed with what was
found instead. Any licence is let in, whatever the settings say: the gate is not what is measured.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine
from sqlmodel import select

from db import jobs
from db.engine import make_engine, session, upgrade
from db.enums import JobState, SourceKind, StageName
from db.models import Crawl, Issue, Job, PullRequest, PullRequestIssue, Repository, TaskInstance
from swefactory import admin
from swefactory.config import Settings
from swefactory.pipeline import run_embedded

type Json = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """Of one crawl."""

    n_examined: int
    n_points: int
    n_calls: int
    n_free: int
    duration_s: float


@dataclass(frozen=True)
class Agreement:
    """How far the catalog says what the file says. `links` counts known links by what gives evidence of them there,
    `found` those of them in the catalog; bases are counted by kind of merge. `differences` are sentences."""

    n_known: int = 0
    n_crawled: int = 0
    links: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, int] = field(default_factory=dict)
    n_more_links: int = 0
    bases: Mapping[str, int] = field(default_factory=dict)
    api_bases_equal: Mapping[str, int] = field(default_factory=dict)
    instances: Mapping[str, int] = field(default_factory=dict)
    instance_bases_equal: Mapping[str, int] = field(default_factory=dict)
    differences: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """Of one repository. `signals` counts links by their sets of signals, `fates` candidate jobs by how they ended."""

    repository: str
    first: Cost
    second: Cost
    candidate_stage_s: float
    n_candidates: int
    signals: Mapping[str, int]
    fates: Mapping[str, int]
    agreement: Agreement


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--github-url", required=True)
    options.add_argument("--candidates", type=Path, help="known pull requests, a JSON object a line")
    options.add_argument("--limit", type=int, help="pull requests with tests to take of each repository")
    options.add_argument("--only-known", action="store_true", help="ask for the known pull requests by their numbers")
    options.add_argument("--json", action="store_true", help="print JSON in place of tables")
    options.add_argument("repositories", nargs="+", metavar="OWNER/NAME")
    args = options.parse_args()
    known = [json.loads(line) for line in args.candidates.read_text().splitlines()] if args.candidates else []
    with tempfile.TemporaryDirectory(prefix="swefactory-crawl-") as home:
        settings = Settings(
            home=Path(home),
            database_url="",
            github_url=args.github_url,
            github_token=SecretStr("benchmark"),
            licenses="*",
        )
        engine = make_engine(settings.catalog_url)
        upgrade(engine)
        reports = [
            _mine(
                _Subject(settings, engine, name, args.limit, args.only_known),
                [one for one in known if one["repo"] == name],
            )
            for name in args.repositories
        ]
        engine.dispose()
    if args.json:
        print(json.dumps([asdict(report) for report in reports], indent=1))
    else:
        _print(reports)
    return 0


@dataclass(frozen=True)
class _Subject:
    settings: Settings
    engine: Engine
    name: str
    limit: int | None
    only_known: bool

    @property
    def source(self) -> SourceKind:
        return SourceKind.GH_ARCHIVE if self.only_known else SourceKind.GITHUB


def _mine(subject: _Subject, known: Sequence[Json]) -> Report:
    numbers = [one["pr_number"] for one in known] if subject.only_known else []
    first = _crawl(subject, numbers)
    started = time.monotonic()
    _run(subject, StageName.CANDIDATE)
    candidate_stage_s = time.monotonic() - started
    second = _crawl(subject, numbers)
    with session(subject.engine, writing=False) as db:
        repository = db.exec(select(Repository).where(Repository.name == subject.name)).one()
        assert repository.id is not None
        instances = db.exec(select(TaskInstance).where(TaskInstance.repository_id == repository.id)).all()
        pulls = select(PullRequestIssue.signals).join(PullRequest)
        links = db.exec(pulls.where(PullRequest.repository_id == repository.id)).all()
        fates = db.exec(
            select(Job.state, Job.reason)
            .join(PullRequest, PullRequest.id == Job.subject_id)  # type: ignore[arg-type]
            .where(Job.stage == StageName.CANDIDATE, PullRequest.repository_id == repository.id)
        ).all()
    return Report(
        repository=subject.name,
        first=first,
        second=second,
        candidate_stage_s=candidate_stage_s,
        n_candidates=len(instances),
        signals=dict(Counter(" + ".join(signals) for signals in links).most_common()),
        fates=dict(Counter(reason.value if reason else state.value for state, reason in fates).most_common()),
        agreement=_agreement(subject.engine, repository.id, known),
    )


def _crawl(subject: _Subject, numbers: Sequence[int]) -> Cost:
    before = _counters(subject)
    with session(subject.engine) as db:
        admin.add_repository(db, subject.name, source=subject.source, limit=subject.limit, numbers=numbers)
    started = time.monotonic()
    _run(subject, StageName.CRAWL)
    duration_s = time.monotonic() - started
    counted = (now - then for now, then in zip(_counters(subject), before, strict=True))
    return Cost(*counted, duration_s)


def _counters(subject: _Subject) -> tuple[int, int, int, int]:
    with session(subject.engine, writing=False) as db:
        of_name = select(Crawl).join(Repository).where(Repository.name == subject.name)
        row = db.exec(of_name.where(Crawl.source == subject.source)).first()
        return (row.n_examined, row.n_graphql_points, row.n_rest, row.n_rest_free) if row else (0, 0, 0, 0)


def _run(subject: _Subject, stage: StageName) -> None:
    """Raises where a job could not be done: half a crawl has no cost worth telling."""
    engine = subject.engine
    summary = run_embedded(subject.settings, engine, stages=[stage])
    counts = jobs.counts(engine)
    if summary.n_unfinished or counts.get((stage, JobState.DEAD)) or counts.get((StageName.CRAWL, JobState.REJECTED)):
        with session(engine, writing=False) as db:
            said = [job.message for job in db.exec(select(Job).where(Job.stage == stage)) if job.message]
        raise SystemExit(f"the {stage.value} stage was not done: {'; '.join(said[:3])}")


def _agreement(engine: Engine, repository_id: int, known: Sequence[Json]) -> Agreement:
    with session(engine, writing=False) as db:
        pulls = {
            row.number: row for row in db.exec(select(PullRequest).where(PullRequest.repository_id == repository_id))
        }
        of_pull = {row.id: row.number for row in pulls.values()}
        bases = {
            of_pull[row.pull_request_id]: row.base_commit
            for row in db.exec(select(TaskInstance).where(TaskInstance.repository_id == repository_id))
        }
        linked: dict[int, set[int]] = {}
        pairs = select(PullRequestIssue.pull_request_id, Issue.number).join(Issue)
        for pull_request_id, number in db.exec(pairs.where(Issue.repository_id == repository_id)):
            linked.setdefault(of_pull[pull_request_id], set()).add(number)
    return _compared(known, pulls, bases, linked)


def _compared(
    known: Sequence[Json], pulls: Mapping[int, PullRequest], bases: Mapping[int, str], linked: Mapping[int, set[int]]
) -> Agreement:
    links: Counter[str] = Counter()
    found: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("all", "api", "instances", "equal")}
    n_more = 0
    differences = []
    for one in known:
        number, kind = one["pr_number"], one["merge_kind"]
        if number not in pulls:
            differences.append(f"{one['instance_id']} was not crawled ({kind})")
            continue
        wanted = {link["number"]: link["how"] for link in one["linked_issues"]}
        has = linked.get(number, set())
        links.update(wanted.values())
        found.update(how for issue, how in wanted.items() if issue in has)
        n_more += len(has - wanted.keys())
        for link in one["linked_issues"]:
            if link["number"] not in has:
                differences.append(f"{one['instance_id']} is not linked to #{link['number']} ({link['how']} in "
                                   f"{link.get('where')}); found {sorted(has)}")  # fmt: skip
        if more := sorted(has - wanted.keys()):
            differences.append(f"{one['instance_id']} is linked to {more} too; known are {sorted(wanted)}")
        counts["all"][kind] += 1
        counts["api"][kind] += pulls[number].base_commit == one["base_sha"]
        if number in bases:
            counts["instances"][kind] += 1
            counts["equal"][kind] += bases[number] == one["base_sha"]
            if bases[number] != one["base_sha"]:
                differences.append(f"{one['instance_id']} has the base {bases[number][:12]}, known is "
                                   f"{one['base_sha'][:12]} ({kind})")  # fmt: skip
    return Agreement(
        n_known=len(known),
        n_crawled=sum(one["pr_number"] in pulls for one in known),
        links=dict(links),
        found=dict(found),
        n_more_links=n_more,
        bases=dict(counts["all"]),
        api_bases_equal=dict(counts["api"]),
        instances=dict(counts["instances"]),
        instance_bases_equal=dict(counts["equal"]),
        differences=tuple(differences),
    )


# ---------------------------------------------------------------- printing


def _print(reports: Sequence[Report]) -> None:
    console = Console(width=150)
    cost = Table("repository", title="cost")
    for name in (
        "examined",
        "candidates",
        "points each",
        "calls each",
        "s / 1000",
        "candidate s / 1000",
        "second crawl",
    ):
        cost.add_column(name, justify="right")
    for report in reports:
        cost.add_row(report.repository, *_cost(report))
    agreement = Table("repository", title="agreement with the known pull requests")
    for name in ("crawled", "links", "of them by", "more links", "API's base", "instance's base"):
        agreement.add_column(name)
    signals = Table("repository", "links by signals", title="links")
    for report in reports:
        agreement.add_row(report.repository, *_agreed(report.agreement))
        signals.add_row(report.repository, ", ".join(f"{n} {name}" for name, n in report.signals.items()))
    for table in (cost, signals, agreement):
        console.print(table)
    for report in reports:
        for difference in report.agreement.differences:
            console.print(difference, markup=False, highlight=False, soft_wrap=True)


def _cost(report: Report) -> tuple[str, ...]:
    n = max(1, report.first.n_examined)
    second = report.second
    return (
        str(report.first.n_examined),
        str(report.n_candidates),
        f"{report.first.n_points / n:.3f}",
        f"{report.first.n_calls / n:.4f}",
        f"{report.first.duration_s / n * 1000:.0f}",
        f"{report.candidate_stage_s / n * 1000:.0f}",
        f"{second.n_points} points, {second.n_calls} calls, {second.n_free} free, {second.duration_s:.1f} s",
    )


def _agreed(agreement: Agreement) -> tuple[str, ...]:
    def each(part: Mapping[str, int], whole: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {part.get(name, 0)}/{n}" for name, n in sorted(whole.items()))

    return (
        f"{agreement.n_crawled}/{agreement.n_known}",
        f"{sum(agreement.found.values())}/{sum(agreement.links.values())}",
        each(agreement.found, agreement.links),
        str(agreement.n_more_links),
        each(agreement.api_bases_equal, agreement.bases),
        each(agreement.instance_bases_equal, agreement.instances),
    )


if __name__ == "__main__":
    raise SystemExit(main())
