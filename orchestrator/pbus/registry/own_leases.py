"""The leases that one runner holds for its own workers, kept alive in the store."""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from pbus.bus.base import WorkerBus
from pbus.errors import BusUnavailableError, DuplicateWorkerError
from pbus.leases import HEARTBEAT_S, Activation, Lease, Renewal
from pbus.names import WORKER_NAME

_MOST_UNREACHED = 32  # names that a lease tells of
STORE_TIMEOUT_S = HEARTBEAT_S  # a call that takes longer would make the next heartbeat late


class OwnLease(msgspec.Struct):
    """One lease of ours.

    Attributes:
        sent: Tells how many messages the worker has sent.
        working: Tells how many jobs it has in hand.
        activation: To be remembered by the store, and not there yet.
        stored: The activation that the store was told of.
    """

    lease: Lease
    sent: Callable[[], int]
    working: Callable[[], int]
    activation: Activation | None = None
    stored: Activation | None = None


class OwnLeases:
    """Claims, renews and releases leases; renewals and releases one after another.

    Attributes:
        version: Of the membership, as of the last renewal; -1 asks for a full reading.
    """

    def __init__(self, bus: WorkerBus) -> None:
        self.version = -1
        self._bus = bus
        self._held: dict[str, OwnLease] = {}
        # A renewal that arrives behind its worker's release would bring the lease back.
        self._lock = asyncio.Lock()

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def lease(self, name: str) -> Lease | None:
        """Our lease of that name."""
        held = self._held.get(name)
        return None if held is None else held.lease

    async def claim(
        self, lease: Lease, sent: Callable[[], int], working: Callable[[], int]
    ) -> None:
        """Take the name.

        Raises:
            DuplicateWorkerError: A live worker has it.
            BusUnavailableError: The store does not answer.
        """
        async with self._deadline():
            holder = await self._bus.leases.claim(lease)
        if holder is not None:
            raise DuplicateWorkerError(lease.name, describe(holder))
        self._held[lease.name] = OwnLease(lease, sent, working)

    def change(self, name: str, **fields: Any) -> Lease | None:
        """Set fields of a lease of ours; the next renewal tells the store."""
        held = self._held.get(name)
        if held is None:
            return None
        held.lease = msgspec.structs.replace(held.lease, **fields)
        return held.lease

    def remember(self, name: str, activation: Activation) -> None:
        """Have the store remember an activation with the next renewal."""
        held = self._held.get(name)
        if held is not None:
            held.activation = activation

    def remember_again(self) -> None:
        """The store was emptied: have it remember activations anew."""
        for held in self._held.values():
            held.activation = held.activation or held.stored

    async def renew(self, names: Iterable[str] | None = None) -> Renewal:
        """Tell the store about our leases, or those named, and learn what changed.

        Raises:
            BusUnavailableError: The store does not answer.
        """
        async with self._deadline(), self._lock:
            wanted = self._held if names is None else self._held.keys() & set(names)
            held = [self._held[name] for name in wanted]
            renewal = await self._bus.leases.renew(
                [self._with_counters(each) for each in held], version=self.version
            )
            for each in held:
                await self._store_activation(each)
        return renewal

    async def release(self, name: str) -> None:
        """Give the name free.

        Raises:
            BusUnavailableError: The store does not answer; the lease will run out there.
        """
        held = self._held.pop(name, None)
        if held is not None:
            async with self._deadline(), self._lock:
                await self._store_activation(held)
                await self._bus.leases.release([held.lease.incarnation])

    def drop(self, name: str) -> None:
        """Forget a lease that is not ours any more."""
        self._held.pop(name, None)

    def _with_counters(self, held: OwnLease) -> Lease:
        stats, counters = self._bus.stats(held.lease.name), self._bus.counters
        return msgspec.structs.replace(
            held.lease,
            beat=time.time(),
            received=stats.received,
            lost=stats.lost,
            queued=stats.queued,
            sent=held.sent(),
            working=held.working(),
            refused=counters.refused,
            unsealed=counters.unsealed,
            faults=counters.faults,
            unreached=self._unreached() if held is next(iter(self._held.values()), None) else {},
        )

    def _unreached(self) -> dict[str, int]:
        """Whom messages of this process did not reach, those with the most first."""
        counts = self._bus.counters.unreached
        most = heapq.nlargest(_MOST_UNREACHED, counts, key=counts.__getitem__)
        return {name: counts[name] for name in most if WORKER_NAME.fullmatch(name)}

    async def _store_activation(self, held: OwnLease) -> None:
        activation = held.activation
        if activation is not None:
            await self._bus.leases.set_activation(held.lease.name, activation)
            held.stored = activation
            if held.activation is activation:
                held.activation = None

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                yield
        except TimeoutError as error:
            reason = f"no answer within {STORE_TIMEOUT_S:g} s"
            raise BusUnavailableError(self._bus.url, reason) from error


def describe(lease: Lease) -> str:
    """Who holds a lease, for an error message."""
    return f"runner {lease.runner!r} (pid {lease.pid} on {lease.host})"
