"""The two agents without a model, the ends of the scale: oracle applies the gold patch, nop does nothing.

One property: a task instance that the oracle does not resolve, or nop does, is broken.
"""

from db.enums import ExitStatus
from swefactory.errors import InfrastructureError
from swefactory.journals import Journal, NoJournal
from swefactory.protocols import AgentResult, Problem
from swefactory.sandbox_protocols import RESULTS_DIR, Sandbox

_PATCH_PATH = f"{RESULTS_DIR}/gold.patch"
_APPLY_TIMEOUT_S = 120
_NO_JOURNAL = NoJournal()


class OracleAgent:
    """Applies `problem.gold_patch` inside the sandbox, by the same git that takes the diff afterwards."""

    def solve(self, problem: Problem, sandbox: Sandbox, journal: Journal = _NO_JOURNAL) -> AgentResult:
        """Raises InfrastructureError when the gold patch, which validation has applied, does not apply."""
        if problem.gold_patch.strip():
            sandbox.write(_PATCH_PATH, problem.gold_patch.encode("utf-8", "surrogateescape"))
            result = sandbox.run(["git", "apply", "--whitespace=nowarn", _PATCH_PATH], timeout_s=_APPLY_TIMEOUT_S)
            if result.exit_code != 0:
                said = result.output.decode(errors="replace").strip()[-500:]
                raise InfrastructureError(
                    f"{problem.instance_id}: the gold patch does not apply to its own base commit: {said}; "
                    "was the checkout changed? validate the instance again"
                )
        return AgentResult(ExitStatus.SUBMITTED, "the gold patch was applied")


class NopAgent:
    """Leaves the tree as it is."""

    def solve(self, problem: Problem, sandbox: Sandbox, journal: Journal = _NO_JOURNAL) -> AgentResult:
        """Never touches the sandbox."""
        return AgentResult(ExitStatus.SUBMITTED, "nothing was done")
