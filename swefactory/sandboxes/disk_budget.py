"""Keeps environments within a budget of bytes. One property: what is in use, or was a moment ago, is never removed.

Before a build, room is made for it: the environments least recently used go first. A job opens sandboxes one after the
other, so one that was in use within the last minutes is left alone too.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from swefactory.errors import Transient
from swefactory.sandbox_protocols import EnvironmentStore, StoredEnvironment

RECENT = timedelta(minutes=10)
_FIRST_GUESS_BYTES = 100 * 2**20  # of an environment, as long as there is none to go by
_RETRY_S = 300


def admit(store: EnvironmentStore, budget_bytes: int) -> list[str]:
    """Makes room for one more environment; the digests that went. 0 is no budget. Raises Transient when what is in
    use leaves no room."""
    if not budget_bytes:
        return []
    use = store.disk_use()
    wanted = _guess(use.environments)
    gone = evict(store, evictable(use.environments), use.total_bytes + wanted - budget_bytes)
    use = store.disk_use() if gone else use
    if use.total_bytes + wanted > budget_bytes and store.drop_caches():
        use = store.disk_use()
    if use.total_bytes + wanted > budget_bytes:
        raise Transient(
            f"no room for another environment: {use.total_bytes} bytes are in use and about {wanted} more are needed, "
            f"but SWEFACTORY_DISK_BUDGET is {budget_bytes}; raise it, or run: swefactory images prune",
            _RETRY_S,
        )
    return gone


def evict(store: EnvironmentStore, candidates: Iterable[StoredEnvironment], excess_bytes: int) -> list[str]:
    """Removes `candidates`, in their order, until `excess_bytes` are freed; the digests that went."""
    gone: list[str] = []
    for each in candidates:
        if excess_bytes <= 0:
            break
        if store.evict(each.digest):
            gone.append(each.digest)
            excess_bytes -= each.unique_bytes
    return gone


def evictable(stored: Sequence[StoredEnvironment], *, now: datetime | None = None) -> list[StoredEnvironment]:
    """Those that may go, least recently used first."""
    since = (now or datetime.now(UTC)) - RECENT
    idle = [each for each in stored if not each.is_in_use and each.last_used_at < since]
    return sorted(idle, key=lambda each: (each.last_used_at, each.digest))


def _guess(stored: Sequence[StoredEnvironment]) -> int:
    if not stored:
        return _FIRST_GUESS_BYTES
    return sum(each.unique_bytes + each.shared_bytes for each in stored) // len(stored)
