"""Verdicts asked for twice. One property: what a server says once and takes back at once drops nothing for good.

GitHub and what stands before it have been seen to answer 404 and 401 for a moment for a repository that is there.
"""

import time
from collections.abc import Callable
from functools import wraps

from swefactory.errors import Rejected

_PAUSE_S = 1.0


def confirmed[**P, R](ask: Callable[P, R]) -> Callable[P, R]:
    """`ask`, done again after a moment when it raises Rejected; the second word counts."""

    @wraps(ask)
    def asked_twice(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return ask(*args, **kwargs)
        except Rejected:
            time.sleep(_PAUSE_S)
            return ask(*args, **kwargs)

    return asked_twice
