"""What happens to the workers, their servers and their disk. One property: the same seed makes the same schedule: which
thing happens when, and by which lot its victim is drawn."""

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.chaos.observer import Observer
from tests.chaos.servers import Server, empty, fill
from tests.chaos.workers import BEAT, Workers

KILLS = ("kill_doer", "kill_tool", "kill_main", "kill_beat", "kill_broker", "restart_database", "jump")
_ALWAYS = {"kill_doer": 10, "kill_tool": 5, "kill_main": 1, "stop": 5, "fill_disk": 1, "jump": 1}
_SERVED = {"kill_beat": 1, "kill_broker": 1, "flush_broker": 1, "restart_database": 1}
_FULL_S = 2.0  # how long the disk stays full
_JUMPS_S = (-43_200, -3_600, -60, 60, 3_600, 43_200)


@dataclass(frozen=True)
class Event:
    at_s: float
    name: str
    lot: float  # from 0 to 1: which of those it could happen to


def schedule(seed: int, pause_s: float, *, has_servers: bool) -> Iterator[Event]:
    """Without end: each thing once, in an order of chance, and by their weights; pauses are `pause_s` on average."""
    chance = random.Random(seed)
    weights = {**_ALWAYS, **(_SERVED if has_servers else {})}
    first = list(weights)
    chance.shuffle(first)
    at_s = 0.0
    while True:
        at_s += chance.uniform(0.3, 1.7) * pause_s
        name = first.pop() if first and chance.random() < 0.5 else chance.choices(list(weights), weights.values())[0]
        yield Event(round(at_s, 2), name, round(chance.random(), 4))


@dataclass
class Disorder:
    """Makes events happen; each that did is counted by its name."""

    workers: Workers
    observer: Observer
    lease_s: float
    disk: Path | None  # None: it cannot be filled without harm to others
    clock: Path | None  # None: no compiler
    broker: Server | None = None
    database: Server | None = None
    happened: Counter[str] = field(default_factory=Counter)
    _full_until: float = 0.0
    _ahead_s: int = 0

    def happen(self, event: Event) -> None:
        if getattr(self, f"_{event.name}")(event.lot):
            self.happened[event.name] += 1

    def heal(self, *, at_once: bool = False) -> None:
        """Who was stopped goes on, the disk gets room again, and who died is started again, each at its time."""
        self.workers.let_go_on(everyone=at_once)
        if self.disk and self._full_until and (at_once or time.monotonic() > self._full_until):
            empty(self.disk)
            self._full_until = 0.0
        for server in (self.broker, self.database):
            if server and not server.is_running:
                server.start()
        self.workers.respawn()

    @property
    def n_kills(self) -> int:
        return sum(self.happened[name] for name in KILLS)

    def at_work(self) -> list[int]:
        """Who has a job in hand and is not stopped."""
        return sorted((self.observer.holders & set(self.workers.doers())) - set(self.workers.stopped))

    def nobody_is_free(self) -> bool:
        """Whether each that runs has a job, be it one that it has lost while it was stopped."""
        self.workers.dazed -= self.observer.holders - set(self.workers.stopped)
        return set(self.workers.doers()) <= self.observer.holders | self.workers.dazed

    def _kill_doer(self, lot: float) -> bool:
        return any(self._killed(pid) for pid in _drawn(self.at_work(), lot))

    def _kill_tool(self, lot: float) -> bool:
        return any(self._killed(pid) for pid in _drawn(self.workers.tools(), lot))

    def _kill_main(self, lot: float) -> bool:
        """Not with its pool: what those still have in hand they may end."""
        return any(self._killed(pid) for pid in _drawn(set(self.workers.mains()) - set(self.workers.mains(BEAT)), lot))

    def _kill_beat(self, lot: float) -> bool:
        return any(self._killed(pid) for pid in self.workers.mains(BEAT))

    def _killed(self, pid: int) -> bool:
        self.workers.kill(pid)
        self.observer.killed(pid)
        return True

    def _stop(self, lot: float) -> bool:
        for pid in _drawn(self.at_work(), lot):
            self.workers.stop(pid, 1.5 * self.lease_s)
            return True
        return False

    def _fill_disk(self, lot: float) -> bool:
        if self.disk is None:
            return False
        fill(self.disk)
        self._full_until = time.monotonic() + _FULL_S
        return True

    def _jump(self, lot: float) -> bool:
        """On SQLite the machine's clock is the database's: it jumps for all at once, as when a machine starts again.
        Else one worker's clock is off, either way; leases and waiting times must not care."""
        if self.clock is None or not self.workers.doers():
            return False
        if self.broker is None:
            self._ahead_s += 3_600
            self.workers.more = self._shifted(self._ahead_s)
            victims = self.workers.mains()
        else:
            self.workers.more = self._shifted(_JUMPS_S[int(lot * len(_JUMPS_S))])
            victims = _drawn(set(self.workers.mains()) - set(self.workers.mains(BEAT)), lot)
        for pid in victims:
            self._killed(pid)
        self.workers.respawn()
        if self.broker is not None:
            self.workers.more = {}
        return True

    def _shifted(self, seconds: int) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.clock), "SWEFACTORY_CLOCK_SHIFT_S": str(seconds)}

    def _kill_broker(self, lot: float) -> bool:
        assert self.broker is not None
        self.broker.stop(signal.SIGKILL)
        time.sleep(lot)
        self.broker.start()
        return True

    def _flush_broker(self, lot: float) -> bool:
        assert self.broker is not None
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.broker.url) as broker:  # it may be away
            return bool(broker.flushall())
        return False

    def _restart_database(self, lot: float) -> bool:
        """Some of the times its clock is an hour ahead of before: every lease has ended then."""
        assert self.database is not None
        self.database.stop(signal.SIGQUIT)
        if self.clock and lot > 0.5:
            self._ahead_s += 3_600
            self.database.environment = self._shifted(self._ahead_s)
        self.database.start()
        return True


def _drawn(found: set[int] | list[int], lot: float) -> Iterator[int]:
    """One of them, if there is any: a pool that has just been started may have no process yet."""
    if found:
        yield sorted(found)[int(lot * len(found))]
