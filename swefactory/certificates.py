"""The certificate of a validation: what was proved, and in which conditions. A versioned format.

One property: it says what ran, and names in `not_run` what did not; `problem` tells why one does not hold (any more).
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from db.enums import Tier
from swefactory.stability import N_RUNS

FORMAT = 2


class HostFacts(BaseModel):
    """The machine that ran the tests."""

    model_config = ConfigDict(frozen=True)
    kernel: str
    machine: str
    n_cpus: int
    sandbox: str


class LeakReport(BaseModel):
    """What an agent's checkout was searched for, see swefactory.leak_audit; `findings` empty: nothing leaks."""

    model_config = ConfigDict(frozen=True)
    findings: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()  # distinctive added lines of the gold patch that were looked for
    n_files: int = 0  # files that were searched for them
    n_objects: int = 0  # of git, each reachable from the one commit


class Certificate(BaseModel):
    """Format 2. Shares are "k/n": runs in which everything held, of all that are evidence."""

    model_config = ConfigDict(frozen=True)
    format: int = FORMAT
    instance_id: str
    subject: str  # sha256:… of base commit, patch and test_patch
    gold: str
    empty: str
    tier: Tier | None  # None: fewer runs than the lowest tier asks for
    n_runs: int  # of the state that ran less often
    n_void: int
    offline: bool = True  # no run that is evidence has a network
    orders: tuple[str, ...]
    conditions: Mapping[str, int]  # name -> runs in which it was measured
    not_run: tuple[str, ...]
    n_tests: int
    n_fail_to_pass: int
    n_error_to_pass: int  # of n_fail_to_pass: could not even start before the patch
    n_flaky: int
    unstable: Mapping[str, int]  # Stability value -> tests that differ between runs for it
    flip_rate_upper: float  # 95 % bound for a test that never differed
    leaks: LeakReport | None  # None: not audited, so the certificate does not hold
    environment_digest: str
    lock_digest: str
    python: str
    pytest: str
    plugin: str
    runner: str = "pytest"  # or what ran the tests without it: unittest, Django and its version
    swefactory: str
    host: HostFacts
    left_out: tuple[str, ...]  # files of the gold patch that the gate left out
    started_at: datetime
    finished_at: datetime


def subject_digest(base_commit: str, patch: str, test_patch: str) -> str:
    """What a certificate is of: another patch or base commit is another subject."""
    hashed = hashlib.sha256()
    for text in (base_commit, patch, test_patch):
        content = text.encode("utf-8", "surrogatepass")
        hashed.update(f"{len(content)}\n".encode() + content)
    return f"sha256:{hashed.hexdigest()}"


def tier_of(n_runs: int) -> Tier | None:
    """The highest tier that so many runs of each state reach."""
    return max((tier for tier, n in N_RUNS.items() if n <= n_runs), key=lambda tier: N_RUNS[tier], default=None)


def host_facts(sandbox: str) -> HostFacts:
    """This machine's."""
    return HostFacts(kernel=platform.release(), machine=platform.machine(), n_cpus=os.cpu_count() or 0, sandbox=sandbox)


def problem(
    stored: Mapping[str, Any], *, subject: str, environment_digest: str, now: datetime, max_age_days: float = 0
) -> str | None:
    """Why a stored certificate does not hold for this subject in this environment now; None when it does."""
    if not stored:
        return "it has no certificate"
    if stored.get("format") != FORMAT:
        return f"its certificate is of format {stored.get('format')}, this version's is {FORMAT}"
    try:
        found = Certificate.model_validate(stored)
    except ValidationError as error:
        return f"its certificate cannot be read: {error.error_count()} fields are wrong"
    return _mismatch(found, subject, environment_digest) or _weakness(found, now, max_age_days)


def _mismatch(found: Certificate, subject: str, environment_digest: str) -> str | None:
    if found.subject != subject:
        return "its patches or base commit are not those of its certificate"
    if found.environment_digest != environment_digest:
        return "its environment is not that of its certificate"
    return None


def _weakness(found: Certificate, now: datetime, max_age_days: float) -> str | None:
    held, n_gold = (int(part) for part in found.gold.split("/"))
    if not n_gold or held != n_gold or not found.empty.startswith("0/") or found.empty == "0/0":
        return f"its gold patch held in {found.gold} runs and no patch in {found.empty}"
    if found.leaks is None or found.leaks.findings:
        return "what an agent would see was not audited" if found.leaks is None else "its checkout leaks the fix"
    if max_age_days and now - found.finished_at > timedelta(days=max_age_days):
        return f"its certificate is of {found.finished_at:%Y-%m-%d}, older than {max_age_days:g} days"
    return None
