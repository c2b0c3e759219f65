"""What is measured, a JSON object a line. One property: a line is whole or it is not read, so a killed run goes on."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One way on one candidate. Sizes are of its environment: what would go with it, what others hold as well."""

    instance_id: str
    way: str
    is_built: bool = False
    step: str = ""  # that failed
    detail: str = ""
    python: str = ""
    digest: str = ""
    n_fail_to_pass: int = 0
    verdict: str = ""  # empty: valid, as far as one pair of runs tells
    environment_s: float = 0.0
    total_s: float = 0.0
    cpu_s: float = 0.0
    unique_bytes: int = 0
    shared_bytes: int = 0
    store_bytes: int = 0  # of the whole kept store, after this candidate
    load: float = 0.0  # the machine's, when it began

    @property
    def is_fault(self) -> bool:
        """Of the machine or the network: says nothing about the way."""
        return self.step == "fault"


@dataclass(frozen=True)
class Rows:
    """The file."""

    path: Path

    def __iter__(self) -> Iterator[Row]:
        """Those written so far; what a killed run left half-written is no row."""
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                yield Row(**json.loads(line))
            except json.JSONDecodeError:
                continue

    def add(self, row: Row) -> None:
        half = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write(("\n" if half else "") + json.dumps(asdict(row)) + "\n")
