"""Searches what an agent would see for the fix: in git, in other copies of the project, in every file. One property: it
looks from inside the sandbox that a rollout opens, at the same checkout, before any code of the repository has run.

    git            one commit, no other object, ref, reflog, note, hook, alternate, submodule store or left-over head
    distributions  none of the project but the checkout's own metadata, packed or unpacked, anywhere
    lines          no file holds three distinctive added lines of the gold patch, which the base commit does not have

Of the system's programs below /usr only sources, texts and diffs are read, elsewhere all but archives and libraries.
A line is distinctive when it has 20 characters, three words and letters among them; the longest ten are looked for.
One such line can be written twice by chance (`for value in values:`), three in one file cannot; of a patch with fewer
only those of 40 characters count.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from swefactory.agent_checkouts import prepare
from swefactory.certificates import LeakReport
from swefactory.errors import InfrastructureError
from swefactory.evaluation import INPUTS, EvaluationServices, EvaluationSpec
from swefactory.model_patches import changes
from swefactory.sandbox_protocols import CHECKOUT_DIR, ENVIRONMENT_DIR, PROJECT_DIR, PYTHON, Sandbox

N_LINES = 10
_MIN_CHARACTERS = 20
_MIN_CHARACTERS_ALONE = 40  # of a patch with fewer than three distinctive lines
_MIN_WORDS = 3
_TIMEOUT_S = 900
_OURS = (CHECKOUT_DIR, ENVIRONMENT_DIR, PROJECT_DIR)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)
    findings: tuple[tuple[str, str], ...]
    n_files: int
    n_objects: int


def audit(services: EvaluationServices, spec: EvaluationSpec, patch: str) -> LeakReport:
    """What of the fix an agent would find. `spec.tree` is the base commit's, `patch` the gold patch.
    Raises InfrastructureError, also when it is the machine that leaks and not the checkout or its environment."""
    lines = distinctive_lines(patch, spec.tree)
    with services.checkouts.scratch() as name:
        sandbox_spec, _ = prepare(services, Path(name), spec)
        with services.sandboxes.open(sandbox_spec) as sandbox:
            answer = _ask(sandbox, spec.layout.name, spec.layout.neighbours, lines)
    if answer.findings and not any(_is_ours(place, services) for place, _ in answer.findings):
        place, text = answer.findings[0]
        raise InfrastructureError(
            f"{place} {text}: this machine shows a sandbox of {spec.layout.name} its own copy; remove it or use docker"
        )
    findings = tuple(f"{place} {text}" for place, text in answer.findings)
    return LeakReport(findings=findings, lines=lines, n_files=answer.n_files, n_objects=answer.n_objects)


def _is_ours(place: str, services: EvaluationServices) -> bool:
    """Whether the subject's own checkout or environment is the place; in an image, everything is."""
    return services.sandboxes.name != "namespace" or place.startswith(_OURS)


def _ask(sandbox: Sandbox, name: str, neighbours: Iterable[str], lines: Iterable[str]) -> _Answer:
    request = {
        "checkout": CHECKOUT_DIR, "environment": ENVIRONMENT_DIR, "project": PROJECT_DIR, "names": [name, *neighbours],
        "lines": list(lines),
    }  # fmt: skip
    script = (INPUTS / "swefactory_audit.py").read_text(encoding="utf-8")
    ended = sandbox.run([PYTHON, "-c", script], timeout_s=_TIMEOUT_S, cwd="/", stdin=json.dumps(request).encode())
    said = ended.output.decode(errors="replace").strip().splitlines()
    try:
        return _Answer.model_validate_json(said[-1] if said and ended.exit_code == 0 else "")
    except ValidationError as error:
        why = "it did not end in time" if ended.timed_out else (said or ["it said nothing"])[-1]
        raise InfrastructureError(
            f"the leak audit of {name} gave no answer ({why}); look at the machine, then retry the job"
        ) from error


def distinctive_lines(patch: str, tree: Path) -> tuple[str, ...]:
    """Added lines that tell the fix, longest first: none of them stands in the base commit's tree."""
    added = {
        text.strip() for change in changes(patch) for hunk in change.hunks or () for mark, text in hunk.lines
        if mark == "+" and is_distinctive(text)
    }  # fmt: skip
    left = sorted(added, key=lambda text: (-len(text), text))
    for content in _contents(tree) if left else ():
        left = [text for text in left if text.encode("utf-8", "surrogateescape") not in content]
    found = [text for text in left if text.isprintable()][:N_LINES]
    return tuple(found if len(found) >= 3 else [text for text in found if len(text) >= _MIN_CHARACTERS_ALONE])


def is_distinctive(line: str) -> bool:
    """Whether a line is unlikely to be written twice by chance."""
    text = line.strip()
    return len(text) >= _MIN_CHARACTERS and len(set(re.findall(r"[^\W\d]\w+", text))) >= _MIN_WORDS


def _contents(tree: Path) -> Iterable[bytes]:
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.read_bytes()
