"""Reads a failed build of an environment. One property: only what the lock itself is guilty of becomes a verdict."""

import re

from db.enums import RejectReason
from swefactory.errors import InfrastructureError, Rejected
from swefactory.machine_faults import fault_of
from swefactory.sandbox_protocols import CommandResult, EnvironmentSpec
from swefactory.sandboxes.system_packages import missing, unknown_to_apt

_NETWORK_FAULT = re.compile(
    r"error sending request|dns error|failed to lookup address|connection (refused|reset)|operation timed out|"
    r"failed to fetch.*(5\d\d|timed? ?out)|tls handshake|certificate|no space left on device|"
    r"temporary failure resolving|could not connect to",
    re.IGNORECASE,
)
_KILLED = re.compile(r"exit code: 137\b|signal: killed")
_STEP = re.compile(r"^#\d+ (\d+\.\d+ ?)?", re.MULTILINE)


def log_text(result: CommandResult) -> str:
    """The build's log without BuildKit's step numbers and times."""
    return _STEP.sub("", result.output.decode(errors="replace")).strip()


def is_network_fault(text: str) -> bool:
    """Whether the network, the index or the disk failed, and not what the lock asks for."""
    return _NETWORK_FAULT.search(text) is not None


def build_failure(spec: EnvironmentSpec, result: CommandResult) -> InfrastructureError | Rejected:
    """What a failed build of `spec` is to the caller."""
    text = log_text(result)
    if result.timed_out:
        return Rejected(RejectReason.BUILD_FAILED, f"environment {spec.digest}: time ran out\n{text[-4000:]}")
    if is_network_fault(text) or fault_of(result) or _KILLED.search(text):
        return InfrastructureError(f"environment {spec.digest} could not be filled: {text[-2000:]}; check the network")
    if unknown := unknown_to_apt(text):
        return missing(f"environment {spec.digest}", unknown, "the base image's Debian has none of that name")
    if "/lock/install.sh" in text:
        return Rejected(RejectReason.BUILD_FAILED, f"environment {spec.digest}: {text[-4000:]}")
    return InfrastructureError(
        f"docker could not build environment {spec.digest}: {text[-2000:]}; see the engine's log"
    )
