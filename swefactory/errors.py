"""The error tree, and the exit code each branch gives the command line.

    SwefactoryError
    ├── UsageError            2   the caller asked for something that cannot be
    ├── InfrastructureError   3   our side or the machine is at fault; the job is retried
    │   ├── Transient             later: carries retry_after_s; gives the attempt back
    │   ├── SandboxUnavailable    the kernel or the engine cannot isolate untrusted code
    │   └── ArtifactError         a stored file cannot be written or read
    └── Rejected                  a verdict on the subject, with a reason; not a fault at all

Every message says what happened, to which subject, and what to do. db.engine.CatalogError (exit 3) stands
beside this tree because db imports nothing of ours. Anything else is a bug and keeps its traceback.
"""

from db.engine import CatalogError
from db.enums import RejectReason

EXIT_OK, EXIT_FINDINGS, EXIT_USAGE, EXIT_INFRASTRUCTURE = 0, 1, 2, 3


class SwefactoryError(Exception):
    """The root: an error we foresaw and can explain in one sentence."""

    exit_code = EXIT_FINDINGS


class UsageError(SwefactoryError):
    """The caller asked for something that cannot be."""

    exit_code = EXIT_USAGE


class InfrastructureError(SwefactoryError):
    """Our side or the machine is at fault, never the subject."""

    exit_code = EXIT_INFRASTRUCTURE


class Transient(InfrastructureError):
    """Later: try the same job again after `retry_after_s` seconds, without spending an attempt."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SandboxUnavailable(InfrastructureError):
    """The kernel or the engine cannot isolate untrusted code; the message says what to do."""


class ArtifactError(InfrastructureError):
    """A stored file cannot be written or read."""


class Rejected(SwefactoryError):
    """A verdict on the subject: it is dropped, for this reason."""

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        super().__init__(detail or reason.value)
        self.reason = reason
        self.detail = detail


def exit_code(error: BaseException) -> int | None:
    """The exit code of a foreseen error; None for a bug, which keeps its traceback."""
    match error:
        case SwefactoryError():
            return error.exit_code
        case CatalogError():
            return EXIT_INFRASTRUCTURE
        case _:
            return None
