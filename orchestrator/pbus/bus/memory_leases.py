"""Leases within one process: for AsyncQueueBus, and for a bus of the user's own."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from pbus.leases import LEASE_S, WITHOUT_READING, Activation, Lease, Renewal, Since

_MOST_GONE = 1_000  # names without a lease whose last change is known


class MemoryLeaseStore:
    """A LeaseStore that ends with its process.

    Args:
        clock: Seconds; only differences matter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._leases: dict[str, tuple[Lease, float]] = {}  # those that end first come first
        self._changes: OrderedDict[str, int] = OrderedDict()  # the last one of each name
        self._oldest_known = 0  # changes up to this version are forgotten
        self._activations: dict[str, Activation] = {}
        self._records: dict[str, tuple[bytes, float]] = {}
        self._stats: dict[str, tuple[bytes, float]] = {}
        self._version = 0

    async def claim(self, lease: Lease) -> Lease | None:
        """Take the name; see LeaseStore."""
        held = self._leases.get(lease.name)
        if held is not None and held[1] <= self._clock():
            self._drop(lease.name)
            held = None
        if held is not None and held[0].incarnation != lease.incarnation:
            return held[0]
        self._put(lease)
        return None

    async def renew(self, leases: Sequence[Lease], *, version: int | Since = -1) -> Renewal:
        """Renew leases; see LeaseStore."""
        expired = self._expire()
        holders = {}
        for lease in leases:
            held = self._leases.get(lease.name)
            if held is not None and held[0].incarnation != lease.incarnation:
                holders[lease.name] = held[0]
            else:
                self._put(lease)
        found, absent = await self._read(version)
        return Renewal(
            version=self._version,
            leases=found,
            absent=absent,
            expired=expired,
            refused=list(holders),
            holders=holders,
        )

    async def extend(self, incarnations: Sequence[str]) -> None:
        """Extend leases; see LeaseStore."""
        for lease in self._of(incarnations):
            self._keep(lease)

    async def release(
        self, incarnations: Sequence[str], *, names: Sequence[str] | None = None
    ) -> list[Lease]:
        """Drop leases; see LeaseStore."""
        released = self._of(incarnations, names)
        for lease in released:
            self._drop(lease.name)
        return released

    async def leases(self) -> list[Lease]:
        """All live leases by name; drops nothing."""
        now = self._clock()
        return [lease for _, (lease, until) in sorted(self._leases.items()) if until > now]

    async def set_activation(self, name: str, activation: Activation) -> None:
        """Remember an activation."""
        self._activations[name] = activation

    async def activation(self, name: str) -> Activation | None:
        """The activation remembered."""
        return self._activations.get(name)

    async def put_record(self, key: str, record: bytes, *, ttl_s: float) -> None:
        """Store a record."""
        self._records[key] = (record, self._clock() + ttl_s)

    async def records(self) -> dict[str, bytes]:
        """Live records."""
        now = self._clock()
        self._records = {key: held for key, held in self._records.items() if held[1] > now}
        return {key: record for key, (record, _) in self._records.items()}

    async def drop_record(self, key: str) -> None:
        """Remove a record."""
        self._records.pop(key, None)

    async def put_stats(self, key: str, stats: bytes, *, ttl_s: float) -> None:
        """Store the counts of a process."""
        self._stats[key] = (stats, self._clock() + ttl_s)

    async def stats(self, key: str | None = None) -> dict[str, bytes]:
        """The counts of processes."""
        now = self._clock()
        self._stats = {one: held for one, held in self._stats.items() if held[1] > now}
        return {one: held[0] for one, held in self._stats.items() if key in {None, one}}

    def _put(self, lease: Lease) -> None:
        held = self._leases.get(lease.name)
        if held is None or is_news(held[0], lease):
            self._note_change(lease.name)
        self._keep(lease)

    def _keep(self, lease: Lease) -> None:
        self._leases.pop(lease.name, None)  # it ends last now
        self._leases[lease.name] = (lease, self._clock() + LEASE_S)

    def _drop(self, name: str) -> None:
        del self._leases[name]
        self._note_change(name)

    def _note_change(self, name: str) -> None:
        self._version += 1
        self._changes[name] = self._version
        self._changes.move_to_end(name)
        while len(self._changes) > 2 * len(self._leases) + _MOST_GONE:
            _, self._oldest_known = self._changes.popitem(last=False)

    async def _read(self, version: int | Since) -> tuple[list[Lease] | None, list[str] | None]:
        """The news for a reader: leases, and names without one; see Renewal."""
        if isinstance(version, Since):
            if self._oldest_known <= version.version <= self._version:
                return self._read_changes(version)
        elif version in {self._version, WITHOUT_READING}:
            return None, None
        return await self.leases(), None

    def _read_changes(self, since: Since) -> tuple[list[Lease] | None, list[str] | None]:
        newer = takewhile(lambda one: one[1] > since.version, reversed(self._changes.items()))
        names = {*since.names, *(name for name, _ in newer)}
        if not names:
            return None, None
        now = self._clock()
        held = [self._leases[name] for name in sorted(names & self._leases.keys())]
        live = [lease for lease, until in held if until > now]
        return live, sorted(names - {lease.name for lease in live})

    def _of(self, incarnations: Sequence[str], names: Iterable[str] | None = None) -> list[Lease]:
        prefixes = tuple(incarnations)
        held = (self._leases.get(name) for name in (self._leases if names is None else names))
        return [one[0] for one in held if one and one[0].incarnation.startswith(prefixes)]

    def _expire(self) -> list[Lease]:
        now = self._clock()
        ended = takewhile(lambda held: held[1] <= now, self._leases.values())
        expired = [lease for lease, _ in ended]
        for lease in expired:
            self._drop(lease.name)
        return expired


def is_news(old: Lease, new: Lease) -> bool:
    """Whether watchers care about the difference (counters and beats are none)."""
    return (old.incarnation, old.state, old.active) != (new.incarnation, new.state, new.active)
