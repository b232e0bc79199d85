"""Flow control between processes: receivers grant, senders in want of credit ask."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from pbus.bus.claims import Presence
from pbus.bus.stream.receiver import StreamReceiver
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import SendStream
from pbus.bus.stream.transport import Transport
from pbus.codec import Count, check_addresses
from pbus.errors import MessageDecodeError
from pbus.seal import NO_SEAL, Seal
from pbus.structs import DECODE_ERRORS

logger = logging.getLogger(__name__)

CREDIT_NOTES = (b'["grant"', b'["probe"')  # what a note begins with

_ASK_EVERY_S = 0.25

_encode = msgspec.json.Encoder().encode
_Limit = Annotated[int, msgspec.Meta(ge=-1, le=1 << 54)]  # of a receiver that left: -1
_What = Literal["grant", "probe"]
_decoder = msgspec.json.Decoder(tuple[_What, str, str, Count, Count, _Limit])
_MAX_GRANTS = 20_000  # that wait to be written; a process has half as many streams

# A JSON array each: what ("grant" or "probe"), its process, address, stream, and for a grant the bytes
# consumed and the limit.


class FlowControl:
    """The notes about credit of one process, both directions.

    Args:
        incarnation: Ours.
        send_buffer: The data lane's, whose senders may be held back.
        transport: Where notes go.
        receiver: Whose receivers grant.
        seal: Of the channel.
        presences: Registries of this process, as there are: credit belongs to an incarnation.
    """

    def __init__(
        self,
        incarnation: str,
        send_buffer: SendBuffer,
        transport: Transport,
        receiver: StreamReceiver,
        seal: Seal = NO_SEAL,
        presences: Sequence[Presence] = (),
    ) -> None:
        self._seal = seal
        self._presences = presences
        self._incarnation = incarnation
        self._send_buffer = send_buffer
        self._transport = transport
        self._receiver = receiver
        self._grants: dict[tuple[str, str], bytes] = {}  # the newest per sender and address
        self._has_grants = asyncio.Event()

    def grant(self, sender: str, address: str, number: int, consumed: int, limit: int) -> None:
        """Tell a sender, soon, how far it may go."""
        note = _encode(("grant", self._incarnation, address, number, consumed, limit))
        self._grants[sender, address] = self._seal.close("note", note)
        self._has_grants.set()

    def receive(self, payload: bytes) -> None:
        """Take a note.

        Raises:
            MessageDecodeError: It is none, or not sealed as it should be.
        """
        note = self._seal.open("note", payload)
        try:
            what, sender, address, number, consumed, limit = _decoder.decode(note)
            check_addresses(sender, address)
        except DECODE_ERRORS as error:
            raise MessageDecodeError(f"no credit note ({error})") from error
        if what == "grant":
            self._send_buffer.grant(sender, address, number, consumed, limit)
        elif not self._receiver.probe(sender, address, number):
            if len(self._grants) >= _MAX_GRANTS:
                raise MessageDecodeError(
                    f"{sender!r} asks for credit, as more do than are answered"
                )
            self.grant(sender, address, number, 0, -1)

    async def run_grants(self) -> None:
        """Write grants until cancelled; while one write is under way newer ones replace older."""
        backoff = self._transport.backoff()
        while True:
            await self._has_grants.wait()
            self._has_grants.clear()
            grants, self._grants = self._grants, {}
            try:
                await self._transport.send_control([
                    (sender, note) for (sender, _), note in grants.items()
                ])
                backoff.reset()
            except self._transport.transient_errors:
                self._grants = grants | self._grants
                self._has_grants.set()
                await backoff.pause()

    async def run_probes(self) -> None:
        """While senders wait: ask their receivers, and forget those that are gone."""
        while True:
            await self._send_buffer.blocking.wait()
            self._send_buffer.blocking.clear()
            if blocked := self._send_buffer.blocked():
                try:
                    await self._ask(blocked)
                except self._transport.transient_errors as error:
                    logger.debug("asking for credit failed: %s", error)
                await asyncio.sleep(_ASK_EVERY_S)
                if self._send_buffer.blocked():
                    self._send_buffer.blocking.set()

    async def _ask(self, blocked: list[SendStream]) -> None:
        """Probe the receivers known, and count those there are."""
        if self._presences:
            self._drop_dead_receivers(blocked)
        asked = [(stream, receiver) for stream in blocked for receiver in stream.receivers()]
        heard, counts = await self._transport.probe(
            self._send_buffer,
            [(receiver, self._probe(stream)) for stream, receiver in asked],
            [stream.address for stream in blocked],
        )
        for (stream, receiver), count in zip(asked, heard, strict=True):
            if count == 0:  # no process is there to hear it
                self._send_buffer.forget(stream, receiver)
        for stream, count in zip(blocked, counts, strict=True):
            self._send_buffer.set_receiver_count(stream, count)

    def _drop_dead_receivers(self, blocked: list[SendStream]) -> None:
        """Wait for no receiver that the registries of this process know is over."""
        for stream in blocked:
            dead = [one for one in stream.receivers() if self._is_over(one)]
            holders = (presence.holder(stream.address) for presence in self._presences)
            self._send_buffer.set_live_receivers(stream, dead, next(filter(None, holders), None))

    def _is_over(self, receiver: str) -> bool:
        return any(presence.is_over(receiver) for presence in self._presences)

    def _probe(self, stream: SendStream) -> bytes:
        note = _encode(("probe", self._incarnation, stream.address, stream.number, 0, 0))
        return self._seal.close("note", note)
