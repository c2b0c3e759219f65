"""Slices of a search: they cover the whole exactly once, whatever there is, and nothing is cut off silently."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swefactory.sources.search import CAP, Slice, parts

DAY = date(2020, 1, 1)
WHOLE = Slice(DAY, DAY + timedelta(days=400))


@dataclass(frozen=True)
class Told:
    n_total: int
    is_complete: bool = True


def holds(piece: Slice, day: date, stars: int) -> bool:
    most = float("inf") if piece.max_stars is None else piece.max_stars
    return piece.first <= day <= piece.last and piece.min_stars <= stars <= most


def counting(crowds: dict[tuple[date, int], int], asked: list[Slice]) -> Callable[[Slice], Told]:
    """A server with so many repositories of each day and number of stars."""

    def ask(piece: Slice) -> Told:
        asked.append(piece)
        return Told(sum(n for (day, stars), n in crowds.items() if holds(piece, day, stars)))

    return ask


DAYS = st.integers(0, 400).map(lambda n: DAY + timedelta(days=n))
STARS = st.one_of(st.integers(0, 50), st.integers(0, 600_000))


@settings(deadline=None)
@given(st.dictionaries(st.tuples(DAYS, STARS), st.integers(1, 3000), max_size=30), st.integers(0, 100), st.booleans())
def test_every_repository_is_in_exactly_one_part(
    crowds: dict[tuple[date, int], int], least: int, has_end: bool
) -> None:
    whole = Slice(WHOLE.first, WHOLE.last, least, 100_000 if has_end else None)
    found = list(parts(whole, counting(crowds, [])))
    for day, stars in crowds:
        holders = [part for part in found if holds(part.slice, day, stars)]
        assert len(holders) == int(holds(whole, day, stars))
    for part in found:
        assert part.answer.n_total == sum(n for (day, stars), n in crowds.items() if holds(part.slice, day, stars))
        assert bool(part.cut) == (part.answer.n_total > CAP)
        if part.cut:
            assert part.slice.halves() is None, "it could have been asked for in smaller parts"
            assert str(part.answer.n_total) in part.cut
            assert str(part.slice) in part.cut


@settings(deadline=None)
@given(st.dictionaries(st.tuples(DAYS, STARS), st.integers(1, 3000), max_size=30))
def test_the_days_and_stars_between_repositories_are_in_exactly_one_part_too(
    crowds: dict[tuple[date, int], int],
) -> None:
    found = list(parts(WHOLE, counting(crowds, [])))
    for n_day in range(0, 401, 7):
        for stars in (0, 1, 2, 3, 17, 1000, 2**19, 2**21):
            holders = [part for part in found if holds(part.slice, DAY + timedelta(days=n_day), stars)]
            assert len(holders) == 1


def test_a_search_that_fits_is_asked_once() -> None:
    asked: list[Slice] = []
    [part] = parts(WHOLE, counting({(DAY, 5): CAP}, asked))
    assert (part.slice, part.cut, asked) == (WHOLE, "", [WHOLE])


def test_one_more_than_fits_is_halved() -> None:
    asked: list[Slice] = []
    crowds = {(WHOLE.first, 5): CAP, (WHOLE.last, 5): 1}
    assert [part.answer.n_total for part in parts(WHOLE, counting(crowds, asked))] == [CAP, 1]
    assert len(asked) == 3


def test_a_crowded_day_is_split_by_stars_and_a_crowd_of_equal_stars_is_named() -> None:
    found = list(parts(WHOLE, counting({(DAY, 0): 1500, (DAY, 1): 900, (DAY, 2): 800}, [])))
    assert [part.answer.n_total for part in found if part.answer.n_total] == [1500, 900, 800]
    [cut] = [part.cut for part in found if part.cut]
    assert cut == "created:2020-01-01..2020-01-01 stars:0..0 has 1500 repositories, of which GitHub shows 1000"


def test_an_incomplete_answer_is_asked_again_in_smaller_parts() -> None:
    def ask(piece: Slice) -> Told:
        return Told(10, is_complete=(piece.last - piece.first).days < 150)

    found = list(parts(WHOLE, ask))
    assert len(found) == 4
    assert not any(part.cut for part in found)


def test_a_server_that_never_completes_is_not_asked_for_ever() -> None:
    asked: list[Slice] = []

    def ask(piece: Slice) -> Told:
        asked.append(piece)
        return Told(10, is_complete=False)

    found = list(parts(WHOLE, ask))
    assert len(asked) == 1 + 2 + 4 + 8
    assert all("gave up" in part.cut for part in found)


def test_a_server_that_always_claims_too_many_is_not_asked_for_ever() -> None:
    one_day = Slice(DAY, DAY, min_stars=10)
    n = sum(1 for _ in parts(one_day, lambda piece: Told(5000) if piece.max_stars is None else Told(0)))
    assert n < 30


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        (Slice(DAY, DAY), "created:2020-01-01..2020-01-01"),
        (Slice(DAY, DAY, 5), "created:2020-01-01..2020-01-01 stars:>=5"),
        (Slice(DAY, DAY, 0, 9), "created:2020-01-01..2020-01-01 stars:0..9"),
    ],
)
def test_a_slice_is_written_as_githubs_qualifiers(piece: Slice, text: str) -> None:
    assert str(piece) == text
