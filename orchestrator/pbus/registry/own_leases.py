"""The leases of one runner's own workers in the store."""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from pbus.bus.base import WorkerBus
from pbus.concurrency.batches import Batches
from pbus.errors import BusUnavailableError, DuplicateWorkerError
from pbus.leases import (
    HEARTBEAT_S,
    MAX_CHILDREN,
    WITHOUT_READING,
    Activation,
    ChildState,
    Lease,
    Renewal,
    Since,
)
from pbus.names import is_worker_name
from pbus.running_handlers import RunningHandler

_MOST_UNREACHED = 32  # names in a lease
UNREAD = Since(-1, is_brief=True)
STORE_TIMEOUT_S = HEARTBEAT_S  # a longer call would delay the next heartbeat


class WorkerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of an own worker at one moment; see Lease."""

    sent: int = 0
    working: int = 0
    done: int = 0
    handler: RunningHandler | None = None
    children: Sequence[ChildState] = ()


class OwnLease(msgspec.Struct):
    """One own lease.

    Attributes:
        figures: Returns the present figures of the worker.
        activation: Not written to the store yet; None when there is none.
        stored: The activation in the store.
    """

    lease: Lease
    figures: Callable[[], WorkerFigures]
    activation: Activation | None = None
    stored: Activation | None = None


class OwnLeases:
    """Claims, renews and releases leases; renewals and releases never overlap.

    Args:
        bus: Its broker stores the leases.

    Attributes:
        since: The state of the store that was read last; None requests a full reading.
        first_name: The first name that was claimed; None before.
    """

    def __init__(self, bus: WorkerBus) -> None:
        self.since: Since | None = None
        self.first_name: str | None = None
        self._bus = bus
        self._leases: dict[str, OwnLease] = {}
        # A renewal that arrives after its worker's release would bring the lease back.
        self._lock = asyncio.Lock()
        self._releases: Batches[OwnLease] = Batches(self._release)

    def __contains__(self, name: object) -> bool:
        return name in self._leases

    def lease(self, name: str) -> Lease | None:
        """The own lease of a name; None when there is none."""
        own = self._leases.get(name)
        return None if own is None else own.lease

    async def claim(self, lease: Lease, figures: Callable[[], WorkerFigures]) -> None:
        """Claim a name.

        Args:
            lease: The new lease.
            figures: Returns the present figures of the worker.

        Raises:
            DuplicateWorkerError: A live worker has it.
            BusUnavailableError: The store does not answer.
        """
        async with self._deadline():
            holder = await self._bus.leases.claim(lease)
        if holder is not None:
            raise DuplicateWorkerError(lease.name, describe(holder))
        self.first_name = self.first_name or lease.name
        self._leases[lease.name] = OwnLease(lease, figures)

    def change(self, name: str, **fields: Any) -> Lease | None:
        """Set fields of an own lease; the next renewal writes them to the store.

        Returns:
            The lease; None when there is none of that name.
        """
        own = self._leases.get(name)
        if own is None:
            return None
        own.lease = msgspec.structs.replace(own.lease, **fields)
        return own.lease

    def remember(self, name: str, activation: Activation) -> None:
        """Write an activation to the store with the next renewal."""
        own = self._leases.get(name)
        if own is not None:
            own.activation = activation

    def remember_again(self) -> None:
        """Write all activations with the next renewal: the store was emptied."""
        for own in self._leases.values():
            own.activation = own.activation or own.stored

    async def renew(self, names: Iterable[str] | None = None) -> Renewal:
        """Tell the store about our leases and learn what changed; or about those named only.

        Raises:
            BusUnavailableError: The store does not answer.
        """
        async with self._deadline(), self._lock:
            wanted = self._leases if names is None else self._leases.keys() & set(names)
            own = [self._leases[name] for name in wanted]
            version = WITHOUT_READING if names is not None else self.since or UNREAD
            renewal = await self._bus.leases.renew(
                [self._with_counters(each) for each in own], version=version
            )
            for each in own:
                await self._store_activation(each)
        return renewal

    async def release(self, name: str) -> None:
        """Release a name. Does nothing for a name without an own lease.

        Raises:
            BusUnavailableError: The store does not answer; the lease will run out there.
        """
        own = self._leases.pop(name, None)
        if own is not None:
            await self._releases.add([own])

    async def _release(self, ended: list[OwnLease]) -> None:
        async with self._deadline(), self._lock:
            for own in ended:
                await self._store_activation(own)
            incarnations = [own.lease.incarnation for own in ended]
            names = [own.lease.name for own in ended]
            await self._bus.leases.release(incarnations, names=names)

    def drop(self, name: str) -> None:
        """Remove a lease that belongs to another runner now. Idempotent."""
        self._leases.pop(name, None)

    def _with_counters(self, own: OwnLease) -> Lease:
        stats, counters = self._bus.stats(own.lease.name), self._bus.counters
        figures = own.figures()
        return msgspec.structs.replace(
            own.lease,
            beat=time.time(),
            received=stats.received,
            lost=stats.lost,
            queued=stats.queued,
            sent=figures.sent,
            working=figures.working,
            done=figures.done,
            handler=figures.handler,
            children=tuple(figures.children[:MAX_CHILDREN]),
            refused=counters.refused,
            unsealed=counters.unsealed,
            faults=counters.faults,
            unreached=self._unreached() if own is next(iter(self._leases.values()), None) else {},
        )

    def _unreached(self) -> dict[str, int]:
        """The names that messages of this process did not reach, with counts, largest first."""
        counts = self._bus.counters.unreached
        most = heapq.nlargest(_MOST_UNREACHED, counts, key=counts.__getitem__)
        return {name: counts[name] for name in most if is_worker_name(name)}

    async def _store_activation(self, own: OwnLease) -> None:
        activation = own.activation
        if activation is not None:
            await self._bus.leases.set_activation(own.lease.name, activation)
            own.stored = activation
            if own.activation is activation:
                own.activation = None

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                yield
        except TimeoutError as error:
            reason = f"no answer within {STORE_TIMEOUT_S:g} s"
            raise BusUnavailableError(self._bus.url, reason) from error


def describe(lease: Lease) -> str:
    """Describe the holder of a lease, for an error message."""
    return f"runner {lease.runner!r} (pid {lease.pid} on {lease.host})"
