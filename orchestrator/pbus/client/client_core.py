"""The base of a client: its bus, its address, its opening and closing."""

import contextlib
import os
import weakref
from collections.abc import AsyncIterator
from typing import Protocol, Self, TypeVar

from pbus.bus.base import WorkerBus
from pbus.bus.otel import trace_if_configured
from pbus.bus.subscriber import BusSubscriber
from pbus.client.addresses import new_name
from pbus.client.attachment import CONNECT_S, Attachment
from pbus.client.targets import FIND_S
from pbus.errors import ClientClosedError
from pbus.registry import KeyOwners, Post

S = TypeVar("S", bound=BusSubscriber)
P = TypeVar("P", bound="Part")


class Part(Protocol):
    """A part of a client, closed with it."""

    async def close(self) -> None:
        """End it. Idempotent."""
        ...


class ClientCore:
    """Opens and closes a client's bus; see Client for the arguments and attributes."""

    def __init__(
        self,
        bus: WorkerBus,
        *,
        project: str | None = None,
        attachment: Attachment | None = None,
        find_timeout: float | None = FIND_S,
        connect_timeout: float = CONNECT_S,
    ) -> None:
        self.name = new_name()
        self.bus = bus
        self.project = project or bus.channel
        self.attachment = attachment
        self._find_timeout = find_timeout
        self._connect_timeout = connect_timeout
        self._state = "not open yet"
        self._owns_bus = False
        self._parts: weakref.WeakSet[Part] = weakref.WeakSet()

    @classmethod
    def at(
        cls,
        attachment: Attachment,
        *,
        find_timeout: float | None = FIND_S,
        connect_timeout: float = CONNECT_S,
        is_traced: bool = False,
    ) -> Self:
        """A client of the project at this address; `is_traced`: by OpenTelemetry, if configured."""
        bus = attachment.new_bus()
        if is_traced:
            trace_if_configured(bus, os.environ)
        return cls(
            bus,
            project=attachment.project,
            attachment=attachment,
            find_timeout=find_timeout,
            connect_timeout=connect_timeout,
        )

    async def __aenter__(self) -> Self:
        if self._state != "not open yet":
            raise ClientClosedError(f"{self._state} already, and is used once")
        self._owns_bus = not self.bus.is_running
        if self._owns_bus:
            await self.bus.start(timeout=self._connect_timeout)
        self._state = "open"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel open jobs, end tails, and leave the bus. Idempotent."""
        was_open, self._state = self._state == "open", "closed"
        if not was_open:
            return
        try:
            for part in list(self._parts):
                await part.close()
        finally:
            if self._owns_bus:
                await self.bus.stop()

    @property
    def _open_bus(self) -> WorkerBus:
        if self._state != "open":
            raise ClientClosedError(self._state)
        return self.bus

    def _owned(self, part: P) -> P:
        """A part that is closed with the client."""
        self._parts.add(part)
        return part

    async def _send_keyed(self, target: str, key: str, post: Post) -> str:
        """Send a message to the replica that its key belongs to; see KeyOwners.send()."""
        return await (await self._key_owners()).send(target, key, post)

    async def _key_owners(self) -> KeyOwners:
        raise NotImplementedError

    @property
    def _find_s(self) -> float:
        return FIND_S if self._find_timeout is None else self._find_timeout

    @contextlib.asynccontextmanager
    async def _subscribed(self, subscriber: S) -> AsyncIterator[S]:
        bus = self._open_bus
        await bus.subscribe(subscriber)
        try:
            yield subscriber
        finally:
            await bus.unsubscribe(subscriber)
