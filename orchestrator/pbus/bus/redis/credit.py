"""Flow control between processes: receivers grant, senders in want of credit ask."""

import asyncio
import logging
from typing import Any

import msgspec

from pbus.bus.inbox import Inbox
from pbus.bus.outbox import Outbox, OutStream
from pbus.bus.redis.endpoint import TROUBLE
from pbus.bus.redis.links import Backoff, RequestLink
from pbus.bus.redis.names import Names
from pbus.bus.redis.publisher import Publisher
from pbus.errors import MessageDecodeError

logger = logging.getLogger(__name__)

CREDIT_NOTES = (b'["grant"', b'["probe"')  # what a payload on the control channel begins with

_ASK_EVERY_S = 0.25

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(tuple[str, str, str, int, int, int])

# On the wire, a JSON array each: what ("grant" or "probe"), from whom, address, stream, and for a
# grant the bytes consumed and the limit.


class Credit:
    """The control channel of one process, both directions.

    Args:
        incarnation: Ours.
        data: The publisher of the data lane, whose senders may be held back.
        link: Where control goes out: the system lane's.
        names: How channels are named.
    """

    def __init__(self, incarnation: str, data: Publisher, link: RequestLink, names: Names) -> None:
        self._incarnation = incarnation
        self._data = data
        self._outbox: Outbox = data.outbox
        self._link = link
        self._names = names
        self._grants: dict[tuple[str, str], bytes] = {}  # the newest per sender and address
        self._has_grants = asyncio.Event()
        self.inbox: Inbox | None = None

    def grant(self, sender: str, address: str, number: int, consumed: int, limit: int) -> None:
        """Tell a sender, soon, how far it may go."""
        note = _encode(("grant", self._incarnation, address, number, consumed, limit))
        self._grants[sender, address] = note
        self._has_grants.set()

    def receive(self, payload: bytes) -> None:
        """Take a note from the control channel.

        Raises:
            MessageDecodeError: It is none.
        """
        try:
            what, sender, address, number, consumed, limit = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise MessageDecodeError(f"no credit note ({error})") from error
        if what == "grant":
            self._outbox.grant(sender, address, number, consumed, limit)
        elif self.inbox is None or not self.inbox.probe(sender, address, number):
            self.grant(sender, address, number, 0, -1)

    async def run_grants(self) -> None:
        """Write grants until cancelled; while one write is under way newer ones replace older."""
        backoff = Backoff()
        while True:
            await self._has_grants.wait()
            self._has_grants.clear()
            grants, self._grants = self._grants, {}
            try:
                await self._link.request([
                    (b"PUBLISH", self._names.control(sender), note)
                    for (sender, _), note in grants.items()
                ])
                backoff.reset()
            except TROUBLE:
                self._grants = grants | self._grants
                self._has_grants.set()
                await backoff.pause()

    async def run_probes(self) -> None:
        """While senders wait: ask their receivers, and forget those that are gone."""
        while True:
            await self._outbox.blocking.wait()
            self._outbox.blocking.clear()
            blocked = self._outbox.blocked()
            if blocked:
                try:
                    await self._ask(blocked)
                except TROUBLE as error:
                    logger.debug("asking for credit failed: %s", error)
                await asyncio.sleep(_ASK_EVERY_S)
                if self._outbox.blocked():
                    self._outbox.blocking.set()

    async def _ask(self, blocked: list[OutStream]) -> None:
        asked: list[tuple[OutStream, str]] = []
        commands: list[tuple[Any, ...]] = []
        for stream in blocked:
            for receiver in stream.receivers():
                note = ("probe", self._incarnation, stream.address, stream.number, 0, 0)
                asked.append((stream, receiver))
                commands.append((b"PUBLISH", self._names.control(receiver), _encode(note)))
        replies = await self._link.request(commands) if commands else []
        for (stream, receiver), heard in zip(asked, replies, strict=True):
            if heard == 0:  # its control channel is gone, so is it
                self._outbox.forget(stream, receiver)
        counts = await self._data.count([stream.address for stream in blocked])
        for stream, count in zip(blocked, counts, strict=True):
            self._outbox.expect(stream, count)
