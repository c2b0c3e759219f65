"""Instances of the catalog that are one task twice. One property: the look-up reads an index, never every instance.

    same patch                    ─► duplicate_patch        in any repository: a backport, a fork, a mirror
    near-duplicate issue texts    ─► near_duplicate_issue   of another repository only: in one repository two pull
                                                            requests may well resolve one issue

The first one stays; rejected ones do not count, as what failed in one repository may hold in its fork.
"""

from sqlmodel import Session, col, delete, or_, select, tuple_

from db.enums import InstanceStatus, RejectReason
from db.models import IssueTextBand, TaskInstance
from swefactory.errors import Rejected
from swefactory.likeness import THRESHOLD, bands, similarity


def duplicate_of(
    session: Session, pull_request_id: int, repository_id: int, *, patch_digest: str, issue_signature: str
) -> Rejected | None:
    """The verdict on a candidate that the catalog has already; None for a new one."""
    if patch_digest and (other := _same_patch(session, pull_request_id, patch_digest)):
        return Rejected(RejectReason.DUPLICATE_PATCH, f"{other.instance_id} has the same patch")
    for row in _sharing_a_band(session, repository_id, issue_signature):
        if (found := similarity(issue_signature, row.issue_signature)) >= THRESHOLD:
            return Rejected(
                RejectReason.NEAR_DUPLICATE_ISSUE, f"{row.instance_id} reads the same (similarity {found:.2f})"
            )
    return None


def store_bands(session: Session, task_instance_id: int, issue_signature: str) -> None:
    """Makes the instance's bands those of its signature."""
    session.exec(delete(IssueTextBand).where(col(IssueTextBand.task_instance_id) == task_instance_id))
    session.add_all(
        IssueTextBand(task_instance_id=task_instance_id, band=band, digest=digest)
        for band, digest in bands(issue_signature)
    )


def _same_patch(session: Session, pull_request_id: int, patch_digest: str) -> TaskInstance | None:
    same = select(TaskInstance).where(TaskInstance.patch_digest == patch_digest)
    others = same.where(TaskInstance.pull_request_id != pull_request_id, TaskInstance.status != InstanceStatus.REJECTED)
    return session.exec(others.order_by(col(TaskInstance.id))).first()


def _sharing_a_band(session: Session, repository_id: int, issue_signature: str) -> list[TaskInstance]:
    keys = bands(issue_signature)
    if not keys:
        return []
    known = tuple_(col(IssueTextBand.band), col(IssueTextBand.digest))
    shared = select(IssueTextBand.task_instance_id).where(or_(*(known == tuple_(*key) for key in keys)))
    others = select(TaskInstance).where(
        col(TaskInstance.id).in_(shared),
        TaskInstance.repository_id != repository_id,
        TaskInstance.status != InstanceStatus.REJECTED,
    )
    return list(session.exec(others.order_by(col(TaskInstance.id))))
