"""Parts of a search that finds more than GitHub shows. One property: the parts cover the whole exactly once. Pure.

    whole ─► ask ─┬─ at most 1,000 and complete ─► one part
                  └─ more, or GitHub gave up half-way ─► its days halved ─► … ─► one day: its stars halved

What cannot be halved any more and still does not fit is a part all the same, and says what is cut off.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Protocol

CAP = 1000  # GitHub shows no more results of one query
FIRST_DAY = date(2005, 4, 1)  # git itself is no older
_MOST_STARS = 2**20  # no repository has so many
_PATIENCE = 3  # halvings that only incomplete answers ask for: then the server, not the query, is the cause


@dataclass(frozen=True)
class Slice:
    """Repositories made from `first` to `last` with `min_stars` to `max_stars` (None: any number), ends included."""

    first: date
    last: date
    min_stars: int = 0
    max_stars: int | None = None

    def __str__(self) -> str:
        """As GitHub's qualifiers."""
        return f"created:{self.first}..{self.last}{self._stars()}"

    def _stars(self) -> str:
        if self.max_stars is not None:
            return f" stars:{self.min_stars}..{self.max_stars}"
        return f" stars:>={self.min_stars}" if self.min_stars else ""

    def halves(self) -> "tuple[Slice, Slice] | None":
        """Two slices that are this one together; None for one day and one number of stars."""
        if self.first < self.last:
            middle = self.first + (self.last - self.first) // 2
            return replace(self, last=middle), replace(self, first=middle + timedelta(days=1))
        if self.max_stars is not None and self.max_stars <= self.min_stars:
            return None
        if self.max_stars is None and self.min_stars >= _MOST_STARS:
            return None
        # without an end, twice as many: most repositories have few stars
        most = self.min_stars * 2 if self.max_stars is None else (self.min_stars + self.max_stars) // 2
        return replace(self, max_stars=most), replace(self, min_stars=most + 1)


class Answer(Protocol):
    """What GitHub says of a slice."""

    @property
    def n_total(self) -> int: ...
    @property
    def is_complete(self) -> bool: ...


@dataclass(frozen=True)
class Part[A: Answer]:
    """A slice and the answer to it. `cut` says what GitHub does not show of it; empty: nothing."""

    slice: Slice
    answer: A
    cut: str = ""


def parts[A: Answer](whole: Slice, ask: Callable[[Slice], A]) -> Iterator[Part[A]]:
    """The parts of `whole`, oldest first. `ask` is called once for each, and once for each that was halved."""
    waiting = [(whole, 0)]
    while waiting:
        piece, n_gave_up = waiting.pop()
        answer = ask(piece)
        n_gave_up = 0 if answer.is_complete else n_gave_up + 1
        too_much = answer.n_total > CAP or 0 < n_gave_up <= _PATIENCE
        if too_much and (halves := piece.halves()):
            waiting += [(half, n_gave_up) for half in reversed(halves)]
        else:
            yield Part(piece, answer, cut_of(piece, answer))


def cut_of(piece: Slice, answer: Answer) -> str:
    """What GitHub does not show of a slice that is asked for as it is."""
    if answer.n_total > CAP:
        return f"{piece} has {answer.n_total} repositories, of which GitHub shows {CAP}"
    return "" if answer.is_complete else f"{piece}: GitHub gave up before it had looked at all repositories"
