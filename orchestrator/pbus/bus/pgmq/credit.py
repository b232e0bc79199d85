"""Flow control between processes: receivers grant, senders in want of credit ask."""

import asyncio
import logging

import msgspec

from pbus.bus.inbox import Inbox
from pbus.bus.outbox import Outbox, OutStream
from pbus.bus.pgmq.wire import CONTROL, Item, Wire
from pbus.errors import BusUnavailableError, MessageDecodeError

logger = logging.getLogger(__name__)

_ASK_EVERY_S = 0.25
_PAUSE_S = 0.2

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(tuple[str, str, str, int, int, int])

# A JSON array each: what ("grant" or "probe"), from whom, address, stream, and for a grant the bytes
# consumed and the limit.


class Credit:
    """The notes about credit of one process, both directions.

    Args:
        incarnation: Ours.
        outbox: The data lane's, whose senders may be held back.
        wire: Where notes go.
        inbox: Whose receivers grant.
    """

    def __init__(self, incarnation: str, outbox: Outbox, wire: Wire, inbox: Inbox) -> None:
        self._incarnation = incarnation
        self._outbox = outbox
        self._wire = wire
        self._inbox = inbox
        self._grants: dict[tuple[str, str], bytes] = {}  # the newest per sender and address
        self._has_grants = asyncio.Event()

    def grant(self, sender: str, address: str, number: int, consumed: int, limit: int) -> None:
        """Tell a sender, soon, how far it may go."""
        if sender == self._incarnation:
            self._outbox.grant(sender, address, number, consumed, limit)
            return
        note = _encode(("grant", self._incarnation, address, number, consumed, limit))
        self._grants[sender, address] = note
        self._has_grants.set()

    def receive(self, payload: bytes) -> None:
        """Take a note.

        Raises:
            MessageDecodeError: It is none.
        """
        try:
            what, sender, address, number, consumed, limit = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise MessageDecodeError(f"no credit note ({error})") from error
        if what == "grant":
            self._outbox.grant(sender, address, number, consumed, limit)
        elif not self._inbox.probe(sender, address, number):
            self.grant(sender, address, number, 0, -1)

    async def run_grants(self) -> None:
        """Write grants until cancelled; while one write is under way newer ones replace older."""
        while True:
            await self._has_grants.wait()
            self._has_grants.clear()
            grants, self._grants = self._grants, {}
            try:
                await self._wire.put([
                    (CONTROL, sender, 1, note) for (sender, _), note in grants.items()
                ])
            except BusUnavailableError:
                self._grants = grants | self._grants
                self._has_grants.set()
                await asyncio.sleep(_PAUSE_S)

    async def run_probes(self) -> None:
        """While senders wait: ask their receivers, and forget those that are gone."""
        while True:
            await self._outbox.blocking.wait()
            self._outbox.blocking.clear()
            if blocked := self._outbox.blocked():
                try:
                    await self._ask(blocked)
                except BusUnavailableError as error:
                    logger.debug("asking for credit failed: %s", error)
                await asyncio.sleep(_ASK_EVERY_S)
                if self._outbox.blocked():
                    self._outbox.blocking.set()

    async def _ask(self, blocked: list[OutStream]) -> None:
        """Probe the receivers known, and count those there are, in one call."""
        lane = self._outbox.lane.value
        asked = [(stream, receiver) for stream in blocked for receiver in stream.receivers()]
        items: list[Item] = [
            (CONTROL, receiver, 1, self._probe(stream)) for stream, receiver in asked
        ]
        items += [(lane, stream.address, 0, None) for stream in blocked]
        counts = await self._wire.put(items)
        for (stream, receiver), heard in zip(asked, counts[: len(asked)], strict=True):
            if heard == 0:
                self._outbox.forget(stream, receiver)
        for stream, count in zip(blocked, counts[len(asked) :], strict=True):
            self._outbox.expect(stream, count)

    def _probe(self, stream: OutStream) -> bytes:
        return _encode(("probe", self._incarnation, stream.address, stream.number, 0, 0))
