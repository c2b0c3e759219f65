"""SIGINT and SIGTERM, acted upon only where they do no harm.

    with deferred():                    a signal is noted, not acted upon: the catalog may be in the middle of something
        claim …
        with interruptible():           here it raises KeyboardInterrupt, at once or on entry
            work …
        save …

One property: between these sections no statement of the catalog is ever torn by a signal. An exception raised anywhere
inside a transaction can leave a connection holding its lock, so that the job cannot even be given back.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class _State:
    """Of the main thread, which alone gets signals. `asked` is the signal that came, 0 for none."""

    is_deferred: bool = False
    is_open: bool = False
    asked: int = 0
    was_raised: bool = False

    def raise_once(self) -> None:
        if self.asked and not self.was_raised:
            self.was_raised = True
            raise KeyboardInterrupt


_state = _State()


@contextmanager
def deferred() -> Iterator[None]:
    """Signals wait for an `interruptible` section. One that met none is sent again at the end, to who handled it
    before; one that this process ignores stays ignored. Inside another such context, and outside the main thread, this
    does nothing."""
    if _state.is_deferred or threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.is_deferred, _state.asked, _state.was_raised = True, 0, False
    heeded = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, _note) for number in heeded}
    try:
        yield
    finally:
        _state.is_deferred = False
        for number, handler in before.items():
            signal.signal(number, handler)
        if _state.asked and not _state.was_raised:
            signal.raise_signal(_state.asked)


@contextmanager
def interruptible() -> Iterator[None]:
    """Lets a deferred signal in: raises KeyboardInterrupt on entry when one has come, or at once when one comes.
    Only the first counts: the next must not break off giving the job back."""
    if not _state.is_deferred or threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.is_open = True
    try:
        _state.raise_once()
        yield
    finally:
        _state.is_open = False


def _note(number: int, frame: object) -> None:
    _state.asked = _state.asked or number
    if _state.is_open:
        _state.raise_once()
