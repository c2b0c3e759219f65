"""What every export of task instances has around its rows: GATE.md, the card, what was left out. One property: the card
tells the whole funnel, from pull requests looked at to rows, so that an export can be judged without the catalog.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import yaml
from sqlalchemy import Engine
from sqlmodel import Session

from db import queries
from swefactory import __version__
from swefactory.exports.folder import ExportFolder
from swefactory.exports.manifest import LeftOut, entry_of
from swefactory.exports.subjects import Choice, Subject, subjects
from swefactory.instance_runs import EvaluatedInstance, load_instance

_GATE_HEAD = """\
# Gate

What each instance had to pass. *gold* and *empty*: of the validation's runs with the reference fix and without any, in
how many every named test held; *oracle* and *nop*: of graded rollouts of the two built-in agents, how many resolved it
(0/0: none ran). An instance whose oracle fails or whose nop succeeds does not leave.

| instance | gold | empty | oracle | nop | tier | offline | leaks | validated by |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass
class Frame:
    """One export of instances in the making; a `with` block that ends well completes GATE.md."""

    db: Session
    folder: ExportFolder
    choice: Choice
    licenses: Counter[str] = field(default_factory=Counter)
    repositories: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Self:
        self._gate = (self.folder.path / "GATE.md").open("w", encoding="utf-8")
        self._gate.write(_GATE_HEAD)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._gate.close()
        if kind is None:
            self.folder.written("GATE.md")

    def subjects(self) -> Iterator[Subject]:
        """The instances that may leave; those which may not are noted with their reason."""
        for found in subjects(self.db, self.choice):
            if isinstance(found, LeftOut):
                self.folder.leave_out(found)
            else:
                yield found

    def fit(self, unfit: Callable[[EvaluatedInstance], str]) -> Iterator[tuple[Subject, EvaluatedInstance]]:
        """Those that the format can hold, as they are evaluated; why another cannot be held is noted."""
        for subject in self.subjects():
            instance = load_instance(self.db, subject.instance.id or 0)
            if why := unfit(instance):
                self.folder.leave_out(LeftOut(instance.instance_id, why))
            else:
                yield subject, instance

    def row(self, subject: Subject, row: Mapping[str, object]) -> None:
        """Names the row of an instance in the manifest and in GATE.md."""
        self.folder.row(
            entry_of(subject.instance.instance_id, row, certificate=subject.certificate, license_=subject.license)
        )
        self.licenses[subject.license or "unknown"] += 1
        self.repositories[subject.repository.name] += 1
        self._gate.write(gate_line(subject))

    def card(self, title: str, text: str, loadable: "Loadable | None" = None) -> "Card":
        """The card of what was written so far."""
        counts = dict(self.licenses), dict(self.repositories)
        return Card(title, text, self.folder.n_rows, self.folder.n_left_out, *counts, loadable)


def gate_line(subject: Subject) -> str:
    """One row of GATE.md."""
    told, leaks = subject.certificate, subject.certificate.get("leaks")
    cells = (
        subject.instance.instance_id, told.get("gold", "?"), told.get("empty", "?"), subject.gate.oracle,
        subject.gate.nop, told.get("tier") or "none", "yes" if told.get("offline") else "no",
        "not audited" if leaks is None else str(len(leaks.get("findings", ()))),
        f"swefactory {told.get('swefactory', '?')}",
    )  # fmt: skip
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"


# ---------------------------------------------------------------- the card


@dataclass(frozen=True)
class Loadable:
    """What `datasets.load_dataset` finds in the folder, as the card's YAML says it."""

    configs: Sequence[Mapping[str, object]]
    dataset_info: Mapping[str, object] | Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Card:
    """README.md of an export, as Hugging Face reads it; `text` says what the files are."""

    title: str
    text: str
    n_rows: int
    n_left_out: int
    licenses: Mapping[str, int]
    repositories: Mapping[str, int]
    loadable: Loadable | None = None


def card_text(card: Card, engine: Engine) -> str:
    """The card with the funnel of the catalog."""
    head: dict[str, object] = {
        "pretty_name": card.title,
        "license": _license(card.licenses),
        "language": ["code", "en"],
        "tags": ["code", "software-engineering", "swe-bench"],
        "task_categories": ["text-generation"],
        "size_categories": [_size(card.n_rows)],
    }
    if card.loadable:
        head |= {"configs": card.loadable.configs, "dataset_info": card.loadable.dataset_info}
    licenses = _table(("licence", "rows"), sorted(card.licenses.items()))
    repositories = _table(("repository", "rows"), sorted(card.repositories.items()))
    return "\n".join((
        "---", yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(), "---", "",
        f"# {card.title}", "", card.text.strip(), "",
        f"{card.n_rows} rows; {card.n_left_out} that were asked for are left out: `manifest.json` names each with its "
        "reason. `GATE.md` holds what each instance had to pass, `SHA256SUMS` every file's hash.", "",
        "## Funnel", "", _query(engine, "funnel"), "", "Why subjects were dropped on the way:", "",
        _query(engine, "rejections"), "",
        "## Licences", "", "Every row is under the licence of the repository it comes from.", "", licenses, "",
        "## Repositories", "", repositories, "", f"Made by swefactory {__version__}.", "",
    ))  # fmt: skip


def _license(licenses: Mapping[str, int]) -> str:
    """Hugging Face's word: an identifier in small letters where there is one alone, else "other"."""
    return next(iter(licenses)).lower() if len(licenses) == 1 and "unknown" not in licenses else "other"


def _size(n: int) -> str:
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if n < bound:
            return name
    return "n>1M"


def _query(engine: Engine, name: str) -> str:
    columns, rows = queries.run(engine, name)
    return _table(columns, rows) if rows else "none"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
