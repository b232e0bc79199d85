"""Leases within one process: for AsyncQueueBus, and for a bus of the user's own."""

import time
from collections.abc import Callable, Sequence

from pbus.leases import LEASE_S, Activation, Lease, Renewal


class MemoryLeaseStore:
    """A LeaseStore that ends with its process.

    Args:
        clock: Seconds; only differences matter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._leases: dict[str, tuple[Lease, float]] = {}
        self._activations: dict[str, Activation] = {}
        self._records: dict[str, tuple[bytes, float]] = {}
        self._stats: dict[str, tuple[bytes, float]] = {}
        self._version = 0

    async def claim(self, lease: Lease) -> Lease | None:
        """Take the name; see LeaseStore."""
        held = self._leases.get(lease.name)
        if held is not None and held[1] <= self._clock():
            del self._leases[lease.name]
            held = None
        if held is not None and held[0].incarnation != lease.incarnation:
            return held[0]
        self._put(lease)
        return None

    async def renew(self, leases: Sequence[Lease], *, version: int = -1) -> Renewal:
        """Renew leases; see LeaseStore."""
        expired = self._expire()
        refused = []
        for lease in leases:
            held = self._leases.get(lease.name)
            if held is not None and held[0].incarnation != lease.incarnation:
                refused.append(lease.name)
            else:
                self._put(lease)
        changed = version != self._version
        return Renewal(
            version=self._version,
            leases=await self.leases() if changed else None,
            expired=expired,
            refused=refused,
        )

    async def extend(self, incarnations: Sequence[str]) -> None:
        """Extend leases; see LeaseStore."""
        for lease in self._of(incarnations):
            self._leases[lease.name] = (lease, self._clock() + LEASE_S)

    async def release(self, incarnations: Sequence[str]) -> list[Lease]:
        """Drop leases; see LeaseStore."""
        released = self._of(incarnations)
        for lease in released:
            del self._leases[lease.name]
            self._version += 1
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
            self._version += 1
        self._leases[lease.name] = (lease, self._clock() + LEASE_S)

    def _of(self, incarnations: Sequence[str]) -> list[Lease]:
        prefixes = tuple(incarnations)
        return [
            lease for lease, _ in self._leases.values() if lease.incarnation.startswith(prefixes)
        ]

    def _expire(self) -> list[Lease]:
        now = self._clock()
        expired = [lease for lease, until in self._leases.values() if until <= now]
        for lease in expired:
            del self._leases[lease.name]
            self._version += 1
        return expired


def is_news(old: Lease, new: Lease) -> bool:
    """Whether watchers care about the difference (counters and beats are none)."""
    return (old.incarnation, old.state, old.active) != (new.incarnation, new.state, new.active)
