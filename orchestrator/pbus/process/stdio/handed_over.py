"""Stored messages that a program has in hand: each is settled when it was handled, as far as is known."""

import asyncio
from collections import OrderedDict

from pbus.bus.local.delivery import Delivery
from pbus.process.stdio.program import Program

_LOOK_S = 0.05
_IN_HAND_S = 0.25  # after it was read; a program that fails over a message mostly does so at once


class HandedOver:
    """Settles messages.

    A program that says so tells of each message when it has handled it. For any other one a message
    counts as handled when the program has read on after it, or has not ended a quarter of a second
    after it was read.

    Args:
        program: Has the messages.

    Attributes:
        is_told: Whether the program tells of each.
    """

    def __init__(self, program: Program) -> None:
        self.is_told = False
        self._program = program
        self._messages: OrderedDict[str, tuple[Delivery, int]] = OrderedDict()
        self._has_some = asyncio.Event()
        self._taken = 0  # as far as was seen
        self._taken_at = 0.0

    def add(self, message_id: str, delivery: Delivery, position: int) -> None:
        """Note a message that was written up to a position."""
        delivery.defer_ack()
        self._messages[message_id] = (delivery, position)
        self._has_some.set()
        self._look()

    def settle(self, message_id: str, error: BaseException | None = None) -> bool:
        """Settle a message; returns whether it was in hand."""
        delivery, _ = self._messages.pop(message_id, (None, 0))
        if delivery is not None:
            delivery.settle(error)
        return delivery is not None

    def settle_all(self) -> None:
        """Settle all: the program has ended well."""
        for message_id in list(self._messages):
            self.settle(message_id)

    def requeue_all(self) -> None:
        """Leave all to the next incarnation."""
        for delivery, _ in self._messages.values():
            delivery.requeue()
        self._messages.clear()

    async def run(self) -> None:
        """Settle what the program has read, until cancelled."""
        while True:
            await self._has_some.wait()
            self._look()
            if not self._messages or self.is_told:
                self._has_some.clear()
            await asyncio.sleep(_LOOK_S)

    def _look(self) -> None:
        """Settle what was handled, as the position up to which the program has read tells."""
        now, taken = asyncio.get_running_loop().time(), self._program.taken
        if self.is_told or self._program.code is not None:
            return
        if taken > self._taken:
            handled, self._taken, self._taken_at = self._taken, taken, now
        elif now - self._taken_at >= _IN_HAND_S:
            handled = taken
        else:
            return
        while self._messages:
            message_id, (_, position) = next(iter(self._messages.items()))
            if position > handled:
                return
            self.settle(message_id)
