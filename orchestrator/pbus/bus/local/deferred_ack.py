"""Deferred acknowledgement: stored messages whose handling outlasts the turn of their lane."""

import asyncio
from collections import Counter
from typing import Any

from pbus.bus.local.delivery import Delivery, current_delivery


def requeue_current() -> bool:
    """Requeue the stored message that is being delivered in this task.

    Returns:
        Whether the current message is a stored one.
    """
    delivery = current_delivery()
    if delivery is None:
        return False
    delivery.defer_ack()
    delivery.requeue()
    return True


class DeferredAcks:
    """Settles each stored message when the last hook that was called for it has ended."""

    __slots__ = ("_cancelled", "_pending")

    # Made with the first message: few of very many workers have any.
    _pending: Counter[Delivery]
    _cancelled: set[Delivery]

    def defer_until(self, task: asyncio.Task[Any]) -> None:
        """Settle the message that is being delivered when a task is done, not before.

        Args:
            task: Runs the hook. Its cancellation requeues the message.
        """
        delivery = current_delivery()
        if delivery is None:
            return
        delivery.defer_ack()
        if not hasattr(self, "_pending"):
            self._pending, self._cancelled = Counter(), set()
        self._pending[delivery] += 1
        task.add_done_callback(lambda task: self._on_task_done(task, delivery))

    def _on_task_done(self, task: asyncio.Task[Any], delivery: Delivery) -> None:
        if task.cancelled():
            self._cancelled.add(delivery)
        self._pending[delivery] -= 1
        if self._pending[delivery]:
            return
        del self._pending[delivery]
        if delivery in self._cancelled:
            self._cancelled.discard(delivery)
            delivery.requeue()
        else:
            delivery.settle()
