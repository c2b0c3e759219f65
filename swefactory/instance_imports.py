"""Published instances become rows of the catalog and jobs. One property: each line ends as one fate, and a second
import of the same file changes nothing.

    added       a new instance, its environment's job queued; validation and the rest follow as for a mined one
    unchanged   the catalog has it already, with the same content
    refused     with why: unreadable, unknown repository, another content or pull request under that id

An import is held to the lists it came with (grading.held_to), and a crawl that finds its pull request leaves it alone.
It is held against the benchmark lists as well; that it counts as a benchmark's instance refuses nothing, as people
import benchmarks to run agents on them, but is recorded, and keeps it out of every export that is made to train on.
"""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import batched
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session, select

from db import jobs
from db.engine import session
from db.enums import StageName
from db.models import Issue, PullRequest, PullRequestIssue, Repository, TaskInstance
from swefactory.admin import known_repository
from swefactory.benchmark_lists import BenchmarkList
from swefactory.decontamination import InstanceFacts, Verdict, check, patch_digest, signature
from swefactory.duplicates import store_bands
from swefactory.published_instances import Line, Published, Unusable, read

_BATCH = 100


class Fate(enum.StrEnum):
    """What became of a line."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True)
class Imported:
    """One line's fate; `why` it was refused, or what is to be known of one that was added."""

    line: int
    instance_id: str
    fate: Fate
    why: str = ""


@dataclass(frozen=True)
class ImportTerms:
    """`clone_from`: where an unknown repository is cloned from, {repo} stands for its name; empty: it is refused."""

    source: str
    lists: tuple[BenchmarkList, ...]
    clone_from: str = ""
    max_attempts: int = 3
    dry_run: bool = False


def import_instances(engine: Engine, lines: Iterable[bytes], terms: ImportTerms) -> Iterator[Imported]:
    """The fate of every line. A batch of lines is one transaction; what was told of is stored."""
    seen: dict[str, int] = {}
    for batch in batched(read(lines), _BATCH):
        with session(engine) as db:
            fates = []
            for line in batch:
                found = _first_of_its_id(seen, line)
                fate, why = _refused(found) if isinstance(found, Unusable) else _stored(db, found, terms)
                fates.append(Imported(line.number, line.instance_id, fate, why))
            if terms.dry_run:
                db.rollback()
        yield from fates


def _first_of_its_id(seen: dict[str, int], line: Line) -> Published | Unusable:
    """What stands in the line, unless an earlier one has the same id."""
    if isinstance(line.found, Unusable):
        return line.found
    first = seen.setdefault(line.instance_id, line.number)
    return line.found if first == line.number else Unusable(f"line {first} has the same instance_id")


def _refused(why: Unusable) -> tuple[Fate, str]:
    return Fate.REFUSED, str(why)


def _stored(db: Session, found: Published, terms: ImportTerms) -> tuple[Fate, str]:
    repository = known_repository(db, found.repository)
    if repository is None and not terms.clone_from:
        return Fate.REFUSED, f"the catalog has no repository {found.repository}; --add-repositories adds it"
    same = db.exec(select(TaskInstance).where(TaskInstance.instance_id == found.instance_id)).first()
    if same is not None:
        different = _different(db, same, found)
        said = f"the catalog has it with another {', '.join(different)}"
        return (Fate.REFUSED, said) if different else (Fate.UNCHANGED, "")
    repository = repository or _repository(db, found, terms)
    pull_request = _pull_request(db, repository, found)
    owner = db.exec(select(TaskInstance).where(TaskInstance.pull_request_id == pull_request.id)).first()
    if owner is not None:
        return Fate.REFUSED, f"pull request {found.number} of {repository.name} is {owner.instance_id} already"
    verdict = _verdict(repository, found, terms)
    _add(db, repository, pull_request, found, verdict, terms)
    return Fate.ADDED, "" if verdict.is_clean else f"never exported to train on: it counts as {verdict}"


def _different(db: Session, row: TaskInstance, found: Published) -> list[str]:
    """Which fields the catalog holds otherwise. Lists of tests are compared as published, in any order."""
    told = row.published or {"FAIL_TO_PASS": row.fail_to_pass, "PASS_TO_PASS": row.pass_to_pass}
    repository = db.get_one(Repository, row.repository_id)
    pairs = {
        "repo": (repository.name.lower(), found.repository.lower()),
        "base_commit": (row.base_commit, found.base_commit),
        "patch": (row.patch, found.patch),
        "test_patch": (row.test_patch, found.test_patch),
        "problem_statement": (row.problem_statement, found.problem_statement),
        "FAIL_TO_PASS": (set(told["FAIL_TO_PASS"]), set(found.fail_to_pass)),
        "PASS_TO_PASS": (set(told["PASS_TO_PASS"]), set(found.pass_to_pass)),
    }
    return [name for name, (ours, theirs) in pairs.items() if ours != theirs]


# ---------------------------------------------------------------- rows


def _repository(db: Session, found: Published, terms: ImportTerms) -> Repository:
    """Known by name, not under watch: nothing of it is crawled until somebody adds it."""
    row = Repository(name=found.repository, clone_url=terms.clone_from.replace("{repo}", found.repository))
    return _added(db, row)


def _pull_request(db: Session, repository: Repository, found: Published) -> PullRequest:
    same = select(PullRequest).where(PullRequest.repository_id == repository.id, PullRequest.number == found.number)
    if known := db.exec(same).first():
        return known
    at = found.created_at
    row = PullRequest(
        repository_id=repository.id or 0, number=found.number, url=found.url, base_commit=found.base_commit,
        opened_at=at, merged_at=at, updated_at=at,
    )  # fmt: skip
    row = _added(db, row)
    for number, url in found.issues:
        issue = _issue(db, repository.id or 0, number, url)
        db.add(PullRequestIssue(pull_request_id=row.id or 0, issue_id=issue.id or 0))
    return row


def _issue(db: Session, repository_id: int, number: int, url: str) -> Issue:
    known = db.exec(select(Issue).where(Issue.repository_id == repository_id, Issue.number == number)).first()
    return known or _added(db, Issue(repository_id=repository_id, number=number, url=url))


def _verdict(repository: Repository, found: Published, terms: ImportTerms) -> Verdict:
    facts = InstanceFacts(
        repository=repository.name,
        number=found.number,
        base_commit=found.base_commit,
        patch_digest=patch_digest(found.patch),
        issue_signature=signature(found.problem_statement),
        fork_root=repository.fork_root,
    )
    return check(facts, terms.lists)


def _add(
    db: Session, repository: Repository, pull_request: PullRequest, found: Published, verdict: Verdict,
    terms: ImportTerms,
) -> None:  # fmt: skip
    lists = {"FAIL_TO_PASS": list(found.fail_to_pass), "PASS_TO_PASS": list(found.pass_to_pass)}
    row = TaskInstance(
        instance_id=found.instance_id,
        repository_id=repository.id or 0,
        pull_request_id=pull_request.id or 0,
        base_commit=found.base_commit,
        environment_setup_commit=found.environment_setup_commit,
        version=found.version,
        patch=found.patch,
        test_patch=found.test_patch,
        test_files=list(found.test_files),
        problem_statement=found.problem_statement,
        hints_text=found.hints_text,
        statement_strips=list(found.statement_strips),
        license=found.license,
        decontamination=verdict.as_json(),
        patch_digest=patch_digest(found.patch),
        issue_signature=signature(found.problem_statement),
        fail_to_pass=lists["FAIL_TO_PASS"],
        pass_to_pass=lists["PASS_TO_PASS"],
        published={"source": terms.source, **lists},
        created_at=found.created_at,
    )
    row = _added(db, row)
    store_bands(db, row.id or 0, row.issue_signature)
    options: dict[str, Any] = {"repository_id": repository.id, "max_attempts": terms.max_attempts}
    jobs.enqueue(db, StageName.ENVIRONMENT, row.id or 0, **options)


def _added[Row: (Repository, PullRequest, Issue, TaskInstance)](db: Session, row: Row) -> Row:
    db.add(row)
    db.flush()
    return row
