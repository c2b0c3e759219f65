"""One way on one candidate: an environment by the way's own means, then the tests once before and once after the fix.

One property: from the environment on, every way runs the product's own evaluation, in a fresh sandbox for each state.
CPU seconds are of this process, all that it starts, its containers and its builds; docker's daemons are left out.
"""

import atexit
import contextlib
import logging
import os
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.environments.rows import Row
from swefactory.artifacts import LocalArtifacts
from swefactory.checkouts import Checkouts
from swefactory.config import Settings
from swefactory.errors import InfrastructureError, Rejected, Transient
from swefactory.evaluation import TestRunResult, evaluate, restricted
from swefactory.grading import judge
from swefactory.instance_runs import EvaluatedInstance, base_evaluation
from swefactory.protocols import Agent, AgentSpec
from swefactory.sandbox_protocols import SandboxBackend
from swefactory.stage import Services
from swefactory.stages.environments import EnvironmentInput
from swefactory.standing import EnvironmentRejected
from swefactory.validation_runs import summary_of

_log = logging.getLogger("environments")
_ACCOUNTS = Path("/sys/fs/cgroup/cpuacct")
TIMES = "CPU seconds of this step:"
_DETAIL_CHARS = 3000
BUILD_S, _TESTS_S = 1200, 600  # generous: a busy machine must not decide
_RETRY_S = 15


@dataclass(frozen=True)
class Environment:
    """What a way made, ready for an evaluation."""

    instance: EvaluatedInstance
    unique_bytes: int = 0
    shared_bytes: int = 0


def services_of(sandboxes: SandboxBackend, home: Path) -> Services:
    """The product's services on a home of its own; its interpreters are looked for before any clock runs."""
    settings = Settings(home=home, test_timeout_s=_TESTS_S, build_timeout_s=BUILD_S)
    sandboxes.pythons()
    if why := sandboxes.probe():
        raise SystemExit(f"the {sandboxes.name} sandbox cannot be measured here: {why}")
    checkouts = Checkouts(settings.mirrors, settings.cache_dir)
    return Services(settings, {}, checkouts, sandboxes, LocalArtifacts(settings.artifacts_dir), _no_agent)


def _no_agent(spec: AgentSpec) -> Agent:
    raise NotImplementedError(f"this benchmark asks no agent ({spec.kind.value})")


def measured(
    services: Services, subject: EnvironmentInput, way: str, make: Callable[[], Environment], *, tries: int = 2
) -> Row:
    """Makes the environment and runs the pair. A fault of machine or network is tried once more."""
    started, cpu_s, row = (
        time.monotonic(),
        INSIDE.total_s,
        Row(subject.instance_id, way, load=round(os.getloadavg()[0], 2)),
    )
    try:
        made = make()
        row = replace(
            row, is_built=True, python=made.instance.python_version, digest=made.instance.environment_digest,
            unique_bytes=made.unique_bytes, shared_bytes=made.shared_bytes,
            environment_s=round(time.monotonic() - started, 3),
        )  # fmt: skip
        row = _judged(row, *_pair(services, made.instance))
    except EnvironmentRejected as verdict:
        row = replace(row, step=verdict.step, detail=verdict.detail, python=verdict.recipe.python_version)
    except Rejected as verdict:
        row = replace(row, step=verdict.reason.value, detail=verdict.detail)
    except (InfrastructureError, Transient, OSError) as error:
        _log.warning("%s: %s: a fault: %s", subject.instance_id, way, error)
        if tries > 1:
            time.sleep(_RETRY_S)
            return measured(services, subject, way, make, tries=tries - 1)
        row = replace(row, step="fault", detail=f"{error}\n{traceback.format_exc()}")
    return replace(
        row, detail=row.detail[-_DETAIL_CHARS:], total_s=round(time.monotonic() - started, 3),
        cpu_s=round(INSIDE.total_s - cpu_s, 3),
    )  # fmt: skip


def _pair(services: Services, instance: EvaluatedInstance) -> tuple[TestRunResult, TestRunResult]:
    spec, lock = base_evaluation(services, instance)
    gold = restricted(instance.patch, instance.test_patch, spec.tree, lock)
    before = evaluate(services, replace(spec, patches=(instance.test_patch,)))
    return before, evaluate(services, replace(spec, patches=(gold.patch, instance.test_patch)))


def _judged(row: Row, before: TestRunResult, after: TestRunResult) -> Row:
    report = judge([summary_of(before)], [summary_of(after)])
    verdict = report.reason.value if report.reason else ""
    said = report.detail
    for name, run in (("before", before), ("after", after)):
        if run.detail:
            said += f"\n{name}: {run.status.value}: {run.detail}"
    if verdict:
        said += f"\n{after.log.decode(errors='replace')[-1500:]}"
    return replace(row, n_fail_to_pass=len(report.fail_to_pass), verdict=verdict, detail=said)


def instance_of(
    subject: EnvironmentInput, services: Services, *, python: str, digest: str, lock: str = ""
) -> EvaluatedInstance:
    """The candidate for an evaluation, its layout still to be filled in."""
    from swefactory.protocols import ProjectLayout

    return EvaluatedInstance(
        instance_id=subject.instance_id,
        repository=subject.repository,
        clone_url=subject.clone_url,
        base_commit=subject.base_commit,
        patch=subject.patch,
        test_patch=subject.test_patch,
        test_files=subject.test_files,
        layout=ProjectLayout("project", "0"),
        environment_digest=digest,
        python_version=python,
        lock_digest=services.artifacts.put(lock.encode(), "text/plain").digest,
        system_packages=(),
        environment_variables={},
    )


# ---------------------------------------------------------------- CPU


class Meter:
    """CPU seconds of this process, of all that it starts, and of what runs for it in containers and builds. Nothing
    where the machine's control groups of version 1 cannot be written. Children that others reap are no
    children to the kernel's own account: a sandbox's, for one."""

    def __init__(self) -> None:
        self._elsewhere_s = 0.0
        self._group: Path | None = None

    def join(self) -> None:
        """Puts this process, and what it starts from now on, into a group of its own."""
        group = _ACCOUNTS / f"swefactory-benchmark-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            (group / "cgroup.procs").write_text(str(os.getpid()))
            self._group = group
            atexit.register(self._leave)

    def _leave(self) -> None:
        """What still runs, a watchdog's last moment, goes to the group above."""
        assert self._group is not None
        for pid in (self._group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (_ACCOUNTS / "cgroup.procs").write_text(pid)
        self._group.rmdir()

    @property
    def total_s(self) -> float:
        """So far."""
        if self._group is None:
            return 0.0
        return self._elsewhere_s + int((self._group / "cpuacct.usage").read_text()) / 1e9

    def add_container(self, container_id: str) -> None:
        """What a container has used so far."""
        used = _ACCOUNTS / "docker" / container_id / "cpuacct.usage"
        if used.exists():
            self._elsewhere_s += int(used.read_text()) / 1e9

    def add_times(self, log: str) -> None:
        """What the shell's `times` printed in a build: two lines, its own and its children's, behind TIMES."""
        for said in log.split(f"{TIMES}\n")[1:]:
            for minutes, seconds in re.findall(r"\b(\d+)m([\d.]+)s\b", "".join(said.splitlines()[:2])):
                self._elsewhere_s += int(minutes) * 60 + float(seconds)


INSIDE = Meter()
