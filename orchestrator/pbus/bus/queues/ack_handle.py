"""The ack handle of a stored message: settles it, requeues it, or has others fetched beside it."""

from typing import Protocol

from pbus.bus.local.delivery import StoredDelivery
from pbus.bus.queues.settler import Settler
from pbus.bus.queues.store import Settlement, StoredMessage
from pbus.settings import DeliveryOptions


class Consumer(Protocol):
    """The consumer that fetched a message.

    Attributes:
        options: How stored messages are treated.
        settler: Settles messages in batches.
    """

    options: DeliveryOptions
    settler: Settler

    async def mark_started(self, message: StoredMessage) -> None:
        """Note that a suspect is about to be handled."""
        ...

    def requeue(self, message: StoredMessage) -> None:
        """Leave a message to others."""
        ...

    def exclude_from_prefetch(self, message: StoredMessage) -> None:
        """Fetch others beside a message that is settled later."""
        ...


class AckHandle(StoredDelivery):
    """One stored message in the hands of its handler."""

    def __init__(self, consumer: Consumer, message: StoredMessage) -> None:
        self._consumer = consumer
        self._message: StoredMessage | None = message
        self.attempt = message.attempt
        self.is_last_attempt = message.attempt >= consumer.options.max_attempts
        self.stored_at = message.stored_at

    def defer_ack(self) -> None:
        """Settle it later; others are fetched beside it."""
        super().defer_ack()
        self.exclude_from_prefetch()

    def exclude_from_prefetch(self) -> None:
        """Have others fetched beside it."""
        if self._message is not None:
            self._consumer.exclude_from_prefetch(self._message)

    async def mark_started(self) -> None:
        """Note in the store that a suspect is about to be handled."""
        if self._message is not None and self._message.is_poison_suspect:
            await self._consumer.mark_started(self._message)

    def settle(self, error: BaseException | None = None) -> None:
        """Ack, retry or dead-letter it. Idempotent."""
        message, self._message = self._message, None
        if message is not None:
            self._consumer.settler.settle(message, error, is_last=self.is_last_attempt)

    def dead_letter(self, reason: str) -> None:
        """Dead-letter it. Idempotent."""
        message, self._message = self._message, None
        if message is not None:
            settlement = Settlement(message=message, how="dead_letter", reason=reason)
            self._consumer.settler.enqueue(settlement)

    def requeue(self) -> None:
        """Leave it to others. Idempotent."""
        message, self._message = self._message, None
        if message is not None:
            self._consumer.requeue(message)
