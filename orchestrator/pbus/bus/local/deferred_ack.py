"""Stored messages whose handling goes on after their lane went on, and those left to others."""

import asyncio
from collections import Counter
from typing import Any

from pbus.bus.local.delivery import Delivery, current_delivery


def requeue_current() -> bool:
    """Have the message that is being delivered come to somebody else; whether it is a stored one."""
    delivery = current_delivery()
    if delivery is None:
        return False
    delivery.hold()
    delivery.give_back()
    return True


class DeferredAcks:
    """Settles stored messages when the last hook that was called for them is over."""

    def __init__(self) -> None:
        self._holds: Counter[Delivery] = Counter()
        self._cut_off: set[Delivery] = set()

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Settle the message that is being delivered when this task is done, not before."""
        delivery = current_delivery()
        if delivery is None:
            return
        delivery.hold()
        self._holds[delivery] += 1
        task.add_done_callback(lambda task: self._note_done(task, delivery))

    def _note_done(self, task: asyncio.Task[Any], delivery: Delivery) -> None:
        if task.cancelled():
            self._cut_off.add(delivery)
        self._holds[delivery] -= 1
        if self._holds[delivery]:
            return
        del self._holds[delivery]
        if delivery in self._cut_off:
            self._cut_off.discard(delivery)
            delivery.give_back()
        else:
            delivery.finish()
