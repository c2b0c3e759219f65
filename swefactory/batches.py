"""Which waiting jobs share set-up with one that was just done. One property: only the order of work changes by it.

Validations of one environment follow each other in one worker: on a machine of its own it then makes that environment
once, not every worker each; with a disk budget it is not evicted and made again in between. Their runs share no more
than the environment, which nobody can write to.
"""

from sqlalchemy import Engine
from sqlmodel import col, select

from db import jobs
from db.engine import session
from db.enums import JobState, StageName
from db.models import Job, TaskInstance

_MOST = 64
_WAITING = (JobState.TODO, JobState.QUEUED)


def beside(engine: Engine, claim: jobs.Claim) -> tuple[int, ...]:
    """Ids of waiting validations in the environment of this one, oldest first; none for other stages."""
    if claim.stage is not StageName.VALIDATION:
        return ()
    here = select(TaskInstance.environment_id).where(col(TaskInstance.id) == claim.subject_id).scalar_subquery()
    waiting = (
        select(col(Job.id))
        .join(TaskInstance, col(TaskInstance.id) == col(Job.subject_id))
        .where(col(Job.stage) == StageName.VALIDATION, col(Job.state).in_(_WAITING))
        .where(col(TaskInstance.environment_id) == here)
        .order_by(col(Job.id))
        .limit(_MOST)
    )
    with session(engine, writing=False) as db:
        return tuple(job_id for job_id in db.exec(waiting) if job_id is not None)
