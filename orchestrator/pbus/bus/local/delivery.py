"""Deliveries: of messages that a store keeps until they are acked, and of those that are not kept."""

import abc
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import ClassVar, Protocol

from pbus.bus.local.lane_reader import Item, ItemHandler, LaneDelivery, LaneReader


class Delivery(Protocol):
    """One stored message in the hands of its handler.

    Attributes:
        attempt: 1 the first time a handler is started with it.
        is_last_attempt: An error now dead-letters it.
        stored_at: When it was first stored, by the loop's clock; its age is the broker's.
    """

    attempt: int
    is_last_attempt: bool
    stored_at: float

    def defer_ack(self) -> None:
        """Ack it with a later settle(), and not when the handler of the bus returns."""
        ...

    def settle(self, error: BaseException | None = None) -> None:
        """Ack it; with an error retry it, or dead-letter it after too many attempts."""
        ...

    def requeue(self) -> None:
        """Leave it to other processes: it was not handled here."""
        ...


class UnstoredDelivery(LaneDelivery):
    """The delivery of messages that are not kept: their sender is told when they are handled."""

    __slots__ = ()

    def hold_back(self) -> LaneDelivery | None:
        """Let the sender send on: what is waited for may be behind it."""
        self.done()
        return None

    def lane_freed(self) -> LaneDelivery | None:
        """Let the sender send on: the handler in progress perhaps waits for just that."""
        self.done()
        return None

    def abandon(self) -> None:
        """Count it as handled."""
        self.done()

    def handle_in(self, handler: ItemHandler, item: Item, reader: LaneReader) -> Awaitable[None]:
        """Handle an item once, whatever comes of it."""
        return handler.handle_unstored(item, reader)


class StoredDelivery(LaneDelivery):
    """The delivery of a message that the broker keeps until it is settled; a Delivery, too.

    Attributes:
        attempt: 1 the first time a handler is started with it.
        is_last_attempt: An error now dead-letters it.
        is_deferred: It is settled later, not when the handler of the bus returns.
        stored_at: When it was first stored, by the loop's clock.
    """

    is_stored: ClassVar[bool] = True
    size: int = 0
    attempt: int = 1
    is_last_attempt: bool = False
    is_deferred: bool = False
    stored_at: float = 0.0

    def defer_ack(self) -> None:
        """Leave it to a later settle()."""
        self.is_deferred = True

    def done(self) -> None:
        """Ack it, unless that is deferred."""
        if not self.is_deferred:
            self.settle()

    def hold_back(self) -> LaneDelivery | None:
        """Let others come before it."""
        self.exclude_from_prefetch()
        return self

    def lane_freed(self) -> LaneDelivery | None:
        """Go on: its lane waits for no store."""
        return self

    def abandon(self) -> None:
        """Requeue it."""
        self.requeue()

    def handle_in(self, handler: ItemHandler, item: Item, reader: LaneReader) -> Awaitable[None]:
        """Handle an item that comes again unless it is settled."""
        return handler.handle_stored(item, self, reader)

    def exclude_from_prefetch(self) -> None:
        """Have others fetched beside it: it waits for a handler that may wait for one of them."""

    @abc.abstractmethod
    def settle(self, error: BaseException | None = None) -> None:
        """Ack it, or with an error retry or dead-letter it."""

    @abc.abstractmethod
    async def mark_started(self) -> None:
        """Note that a handler is about to start."""

    @abc.abstractmethod
    def dead_letter(self, reason: str) -> None:
        """Give it up: no handler can ever handle it."""

    @abc.abstractmethod
    def requeue(self) -> None:
        """Leave it to other processes: it was not handled here."""


_current: ContextVar[Delivery | None] = ContextVar("pbus_delivery", default=None)


# Returns the stored message whose on_bus_message is running now; None on at-most-once buses.
current_delivery = _current.get


def set_current_delivery(delivery: Delivery | None) -> None:
    """Note what is delivered in this task from now on."""
    _current.set(delivery)
