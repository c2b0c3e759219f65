"""Which repositories are worth a crawl, by the settings. One property: each refusal names its setting. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime

from db.enums import RejectReason
from swefactory import licenses
from swefactory.errors import Rejected
from swefactory.protocols import RepositoryRecord


@dataclass(frozen=True)
class RepositoryFilters:
    """The settings of these names. What a source does not know (a clone has no stars) is not held against it."""

    min_stars: int = 0
    max_bytes: int = 0  # 0: any
    pushed_after: date | None = None
    language: str = ""  # empty: any
    forks: bool = False
    archived: bool = True
    licenses: frozenset[str] = licenses.PERMISSIVE


def refusal(record: RepositoryRecord, filters: RepositoryFilters) -> Rejected | None:
    """Why `record` is not crawled; None when it is."""
    name = record.name
    if record.is_fork and not filters.forks:
        root = f" of {record.fork_root}" if record.fork_root else ""
        return _refused(RejectReason.REPOSITORY_IS_FORK, f"{name} is a fork{root}", "FORKS=true")
    if record.is_archived and not filters.archived:
        return _refused(RejectReason.REPOSITORY_ARCHIVED, f"{name} is archived", "ARCHIVED=true")
    if filters.language and record.language and record.language.lower() != filters.language.lower():
        said = f"{name} is mostly {record.language}, not {filters.language}"
        return _refused(RejectReason.REPOSITORY_OTHER_LANGUAGE, said, "LANGUAGE")
    if filters.max_bytes and record.size_bytes > filters.max_bytes:
        said = f"{name} has {record.size_bytes} bytes, more than {filters.max_bytes}"
        return _refused(RejectReason.REPOSITORY_TOO_LARGE, said, "MAX_REPOSITORY_BYTES")
    if record.pushed_at and record.n_stars < filters.min_stars:
        said = f"{name} has {record.n_stars} stars, fewer than {filters.min_stars}"
        return _refused(RejectReason.REPOSITORY_FEW_STARS, said, "MIN_STARS")
    if record.pushed_at and filters.pushed_after and record.pushed_at < _midnight(filters.pushed_after):
        said = f"{name} was last pushed to on {record.pushed_at:%Y-%m-%d}, before {filters.pushed_after}"
        return _refused(RejectReason.REPOSITORY_INACTIVE, said, "PUSHED_AFTER")
    return _license_refusal(record, filters.licenses)


def _license_refusal(record: RepositoryRecord, allow_list: Collection[str]) -> Rejected | None:
    if licenses.allowed(record.license, allow_list):
        return None
    what = f"the licence {record.license}" if record.license else "no licence that was recognised"
    listed = record.license or licenses.UNKNOWN
    return _refused(
        RejectReason.LICENSE_NOT_ALLOWED, f"{record.name} has {what}", f"LICENSES with {listed} in it (see README)"
    )


def _refused(reason: RejectReason, said: str, setting: str) -> Rejected:
    return Rejected(reason, f"{said}; SWEFACTORY_{setting} would let it in")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
