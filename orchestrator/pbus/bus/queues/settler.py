"""Settling stored messages in batches: ack, retry, requeue, dead-letter."""

import asyncio
import logging

from pbus.bus.queues.in_flight import InFlight
from pbus.bus.queues.producer import OUTAGE_PAUSE_S
from pbus.bus.queues.store import QueueStore, Settlement, StoredMessage
from pbus.concurrency.backoff import delay_after
from pbus.errors import BusUnavailableError, kind_of, text_of

logger = logging.getLogger(__name__)

GATHER_S = 0.005  # messages settled meanwhile share a call, while others are in flight
_GATHER_ALONE_S = 0.002  # likewise those that come one by one, each an answer to one of ours
_FIRST_RETRY_S = 0.5
_MAX_RETRY_S = 30.0


class Settler:
    """Settles what was handled, in batches.

    Args:
        store: The broker's side.
        in_flight: Of this process; a settled message leaves it.
    """

    def __init__(self, store: QueueStore, in_flight: InFlight) -> None:
        self._store = store
        self._in_flight = in_flight
        self._settlements: list[Settlement] = []
        self._settling: list[Settlement] = []  # on their way to the broker
        self._has_settlements = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether the broker knows all that was settled."""
        return not (self._settlements or self._settling)

    def enqueue(self, settlement: Settlement) -> None:
        """Settle a message, soon, together with others."""
        self._in_flight.release_slot(settlement.message)
        self._settlements.append(settlement)
        self._has_settlements.set()

    def settle(self, message: StoredMessage, error: BaseException | None, *, is_last: bool) -> None:
        """Settle a message by what its handler ended with.

        Args:
            message: Which.
            error: What the handler raised; None: ack it.
            is_last: It was the last attempt: an error dead-letters it. Else it is retried, later
                with each attempt.
        """
        if error is None:
            self.enqueue(Settlement(message=message))
            return
        reason = f"{kind_of(error)}: {text_of(error)}"
        if is_last:
            self.enqueue(Settlement(message=message, how="dead_letter", reason=reason))
        else:
            delay = delay_after(message.attempt, _FIRST_RETRY_S, _MAX_RETRY_S)
            self.enqueue(Settlement(message=message, how="retry", delay_s=delay, reason=reason))

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            await self._has_settlements.wait()
            if self._in_flight.any():  # of the same entries perhaps: whole ones cost least
                await asyncio.sleep(GATHER_S)
            elif all(map(_is_plain, self._settlements)):
                await asyncio.sleep(_GATHER_ALONE_S)
            self._has_settlements.clear()
            self._settling, self._settlements = self._settlements, []
            while self._settling:
                await self._settle_once()

    async def flush(self) -> None:
        """Settle what is left, once.

        Raises:
            BusUnavailableError: The broker is away; it comes again after our end.
        """
        left, self._settling, self._settlements = self._settling + self._settlements, [], []
        if left:
            await self._store.settle(left)

    async def _settle_once(self) -> None:
        try:
            await self._store.settle(self._settling)
        except BusUnavailableError:
            await asyncio.sleep(OUTAGE_PAUSE_S)
            return
        except Exception:  # what it left unsettled comes again after our end
            logger.exception("settling messages failed: a bug in pbus; going on")
        self._settling = []
        self._in_flight.has_room.set()


def _is_plain(settlement: Settlement) -> bool:
    """Whether others do not wait for it, and no process ends over what comes after it."""
    return settlement.how == "ack" and not settlement.message.is_poison_suspect
