"""Nested subsets of the instances that may leave, for scaling curves, and a set for reinforcement learning.

    subsets.jsonl       a row an instance: rank, subsets it is in, difficulty, n_tries, n_solved, and its SWE-bench row
    ids/00125.txt …     the ids of each subset, by rank: the lines of the smaller are the first of the larger
    ids/rl.txt rl.jsonl instances that some tries solve and some do not, with a prompt

Difficulty is the band of swefactory.pass_rates (none, some or all of the counted tries solve it), or untried. One
property: every prefix of the order by rank holds as large a part of each repository's instances of a difficulty as of
any other's, give or take one instance of each.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, case, func
from sqlmodel import Session, col, select

from db.engine import session
from db.enums import ExportFormat
from db.models import AgentConfig, Rollout, TaskInstance
from swefactory.errors import UsageError
from swefactory.exports import swebench
from swefactory.exports.folder import ExportFolder
from swefactory.exports.frame import Frame, card_text
from swefactory.exports.image_sources import Images
from swefactory.exports.manifest import LeftOut
from swefactory.exports.rollout_subjects import NOT_THE_AGENTS
from swefactory.exports.subjects import Choice, Subject, subjects
from swefactory.instance_runs import load_instance
from swefactory.pass_rates import Tries, band

UNTRIED = "untried"
_SMALLEST, _RL = 125, "rl"
_TEXT = """\
Nested subsets: `ids/00125.txt` holds the first lines of `ids/00250.txt`, and so on; each has of every repository and
difficulty its share. The same seed gives the same subsets. `rl.jsonl`: instances for reinforcement learning, which some
of the counted tries solve and some do not.
"""


@dataclass(frozen=True)
class Cut:
    """How the subsets are cut. `sizes` empty: 125, 250, 500 … below the number of instances, and all."""

    seed: int = 0
    sizes: tuple[int, ...] = ()
    min_rate: float = 0.05  # of tries that solve an instance of the set for reinforcement learning
    max_rate: float = 0.95
    min_tries: int = 2

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.sizes):
            raise UsageError("a subset has at least one instance; give --size a number above 0")
        if not 0 <= self.min_rate <= self.max_rate <= 1:
            raise UsageError(f"rates from {self.min_rate} to {self.max_rate}: give 0 <= --min-rate <= --max-rate <= 1")

    def options(self) -> dict[str, object]:
        """As the manifest tells them."""
        return {**vars(self), "sizes": list(self.sizes)}

    def sizes_of(self, n: int) -> tuple[int, ...]:
        """The sizes for so many instances, ascending; the last is all of them."""
        wanted = self.sizes
        if not wanted:
            wanted = tuple(_SMALLEST * 2**k for k in range(n.bit_length()))
        return tuple(sorted({*(size for size in wanted if size < n), n})) if n else ()

    def is_for_learning(self, tries: Tries) -> bool:
        """Whether an agent can still learn from it, and sometimes does solve it."""
        return tries.n >= self.min_tries and self.min_rate <= tries.n_solved / tries.n <= self.max_rate


_USUAL = Cut()


def write(engine: Engine, images: Images, choice: Choice, target: Path, cut: Cut = _USUAL) -> ExportFolder:
    """Writes the folder `target`. Instances are gone through twice: first for their strata, then for their rows. Raises
    UsageError, ArtifactError, and what images raise."""
    options = {**choice.options(), **cut.options(), "images": images.source.value, "registry": images.prefix}
    with ExportFolder(target, ExportFormat.SUBSETS.value, options) as folder:
        with session(engine, writing=False) as db, Frame(db, folder, choice) as frame:
            tries = tries_of(db)
            order = ranked(_strata(db, choice, tries), cut.seed)
            ids, for_learning = _write_rows(frame, images, tries, order, cut)
        for size in cut.sizes_of(len(order)):
            folder.write(f"ids/{size:05}.txt", "".join(f"{each}\n" for each in order[:size]))
        folder.write(f"ids/{_RL}.txt", "".join(f"{each}\n" for each in order if each in for_learning))
        images.write(engine, folder, ids)
        folder.write("README.md", card_text(frame.card("Subsets by swefactory", _TEXT), engine))
    return folder


def _strata(db: Session, choice: Choice, tries: Mapping[str, Tries]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each instance that leaves, with its repository and difficulty."""
    for subject in subjects(db, choice):
        if isinstance(subject, Subject) and not swebench.unfit(load_instance(db, subject.instance.id or 0)):
            instance_id = subject.instance.instance_id
            yield instance_id, (subject.repository.name, difficulty(tries.get(instance_id)))


def _write_rows(
    frame: Frame, images: Images, tries: Mapping[str, Tries], order: Sequence[str], cut: Cut
) -> tuple[list[int], set[str]]:
    """The ids of the rows that left, and which instances are for reinforcement learning."""
    ids: list[int] = []
    for_learning: set[str] = set()
    ranks = {instance_id: rank for rank, instance_id in enumerate(order, 1)}
    sizes = cut.sizes_of(len(order))
    with frame.folder.lines("subsets.jsonl") as rows, frame.folder.lines(f"{_RL}.jsonl") as learning:
        for subject, instance in frame.fit(swebench.unfit):
            if instance.instance_id not in ranks:
                frame.folder.leave_out(LeftOut(instance.instance_id, "it was validated while this export ran"))
                continue
            tried = tries.get(instance.instance_id, Tries(0, 0))
            told = _told(ranks[instance.instance_id], sizes, tried)
            row = {**swebench.row(subject, instance, images.source, images.prefix), **told}
            rows.write(row)
            if cut.is_for_learning(tried):
                learning.write(_prompted(subject, row))
                for_learning.add(instance.instance_id)
            frame.row(subject, row)
            ids.append(subject.instance.id or 0)
    return ids, for_learning


def _told(rank: int, sizes: Sequence[int], tried: Tries) -> Mapping[str, object]:
    return {
        "rank": rank,
        "subsets": [size for size in sizes if rank <= size],
        "difficulty": difficulty(tried),
        "n_tries": tried.n,
        "n_solved": tried.n_solved,
    }


def _prompted(subject: Subject, row: Mapping[str, object]) -> Mapping[str, object]:
    """As trainers want it: a prompt, and what grades the answer."""
    names = ("instance_id", "repo", "base_commit", "image", "image_source", "FAIL_TO_PASS", "PASS_TO_PASS", "n_tries",
             "n_solved", "rank")  # fmt: skip
    prompt = [{"role": "user", "content": subject.instance.problem_statement}]
    return {"prompt": prompt, **{name: row[name] for name in names}}


# ---------------------------------------------------------------- the order


def difficulty(tries: Tries | None) -> str:
    """The band of an instance."""
    found = band(tries) if tries else None
    return found.value if found else UNTRIED


def ranked(strata: Iterable[tuple[str, tuple[str, ...]]], seed: int) -> list[str]:
    """Instances by rank. Those of a stratum are shuffled and spread evenly over the whole, each stratum from a place of
    its own: any first m hold the same part of each then, give or take one of it. The seed decides both."""
    members: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for instance_id, stratum in strata:
        members[stratum].append(instance_id)
    places: list[tuple[float, str, str]] = []
    for stratum, ids in members.items():
        begin = _share(seed, "stratum", *stratum)
        for n, instance_id in enumerate(sorted(ids, key=lambda each: (_hash(seed, each), each))):
            places.append(((n + begin) / len(ids), _hash(seed, instance_id), instance_id))
    return [instance_id for _, _, instance_id in sorted(places)]


def _hash(seed: int, *words: str) -> str:
    return hashlib.sha256("\0".join((str(seed), *words)).encode("utf-8", "surrogatepass")).hexdigest()


def _share(seed: int, *words: str) -> float:
    """A number from 0 to below 1."""
    return int(_hash(seed, *words)[:13], 16) / 16**13


def tries_of(db: Session) -> Mapping[str, Tries]:
    """Of each instance the tries of agents with a model that count: as the named query `difficulty` counts them."""
    solved = func.count(case((col(Rollout.resolved).is_(True), 1)))
    statement = (
        select(TaskInstance.instance_id, func.count(), solved)
        .join(Rollout, col(Rollout.task_instance_id) == col(TaskInstance.id))
        .join(AgentConfig, col(AgentConfig.id) == col(Rollout.agent_config_id))
        .where(AgentConfig.model != "", col(Rollout.resolved).is_not(None))
        .where(col(Rollout.exit_status).not_in(NOT_THE_AGENTS), func.json_array_length(Rollout.suspicious) == 0)
        .group_by(TaskInstance.instance_id)
    )
    return {instance_id: Tries(n, n_solved) for instance_id, n, n_solved in db.exec(statement)}
