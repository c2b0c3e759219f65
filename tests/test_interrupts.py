"""Signals are acted upon only where they do no harm, once, and never lost."""

import signal
from collections.abc import Iterator

import pytest

from swefactory.interrupts import deferred, interruptible


@pytest.fixture(autouse=True)
def seen() -> Iterator[list[int]]:
    """What reaches the handlers that were there before."""
    numbers: list[int] = []
    before = {n: signal.signal(n, lambda number, _: numbers.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_waits_for_a_section_that_may_be_interrupted(seen: list[int]) -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), deferred():
        signal.raise_signal(signal.SIGTERM)
        steps.append("saved")
        with interruptible():
            steps.append("never")
    assert steps == ["saved"]
    assert seen == [], "it was acted upon, so it is not sent again"


def test_inside_such_a_section_it_is_acted_upon_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), deferred(), interruptible():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the work went on")


def test_a_second_signal_does_not_break_off_giving_back() -> None:
    given_back = False
    with pytest.raises(KeyboardInterrupt), deferred():
        try:
            with interruptible():
                signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            with interruptible():
                signal.raise_signal(signal.SIGTERM)
            given_back = True
    assert given_back


def test_a_signal_that_met_no_such_section_is_sent_again_at_the_end(seen: list[int]) -> None:
    with deferred():
        signal.raise_signal(signal.SIGTERM)
        assert seen == []
    assert seen == [signal.SIGTERM]


def test_an_ignored_signal_stays_ignored(seen: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferred(), interruptible():
        signal.raise_signal(signal.SIGINT)


def test_without_deferral_nothing_changes(seen: list[int]) -> None:
    with interruptible():
        signal.raise_signal(signal.SIGINT)
    assert seen == [signal.SIGINT]
