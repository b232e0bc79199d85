"""Messages that are not stored: rows that wait a moment for the process they are for."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from pbus.bus.pgmq.connections import ConnectionPair
from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import OutBatch
from pbus.bus.stream.transport import ControlFrame, OnWritten
from pbus.concurrency.backoff import Backoff
from pbus.errors import BusUnavailableError

logger = logging.getLogger(__name__)

PEER_LEASE_S = 20.0  # a process silent for so long gets nothing more; its supervisor says so sooner
CONTROL = "c"  # the lane of notes about credit
_POLL_S = 2.0  # look without being woken: a notification may be lost with its connection
_PAUSE_S = 0.2
_ROWS = 100
_TIDY_EVERY = 15  # beats

_JOIN = "SELECT pbus.stream_join($1, $2, $3, $4, $5, $6)"
_READ = "SELECT * FROM pbus.stream_read($1, $2, $3, $4)"
_TIDY = "SELECT pbus.stream_tidy()"
_PUT = "SELECT pbus.stream_put($1, $2, $3, $4, $5)"

Item = tuple[str, str, int, bytes | None]  # lane, address, messages, payload; None: only count
Taken = Callable[[int, bytes], None]


class PgTransport:
    """One process's end, both directions; see also pbus.bus.stream.transport.

    Args:
        connections: Its connections.
        name: Its incarnation.
        take: Given each payload: its rank (0 control, 1 system, 2 data) and its bytes.
        follows: Get everything that passes.
        lease_s: How long the others keep rows for a process that says nothing.

    Attributes:
        missed: What a follower was too slow for, in messages.
        addresses: What is sent there comes here.
    """

    broker: str = "server"
    transient_errors: tuple[type[Exception], ...] = (BusUnavailableError,)
    supports_nowait: bool = (
        False  # a statement is waited for; more in one is worth more than a head start
    )

    def __init__(
        self,
        connections: ConnectionPair,
        name: str,
        take: Taken,
        *,
        follows: bool = False,
        lease_s: float = PEER_LEASE_S,
    ) -> None:
        self.missed = 0
        self.addresses: list[str] = []
        self._connections = connections
        self._name = name
        self._take = take
        self._follows = follows
        self._lease_s = lease_s
        # Drawn, not counted by the server, which after a crash would begin at 1.
        self._me = secrets.randbits(63)
        self._token = f"{self._me:x}"
        self._is_in = False
        self._must_join = False
        self._read_ids: list[tuple[int, int]] = []  # rank and id of what the next read removes
        self._woken = asyncio.Event()
        self._is_drained = asyncio.Event()
        self._beats = 0

    async def open(self) -> None:
        """Join, so that whatever is sent from then on arrives.

        Raises:
            BusUnavailableError: Not confirmed.
        """
        self._connections.add_listener(self._heard)
        self._is_in = False
        await self._connections.writer.call(_TIDY)
        await self._connections.listen()
        await self.join()

    async def join(self) -> None:
        """Tell the others our addresses, or that we still live.

        Raises:
            BusUnavailableError: Not confirmed.
        """
        arguments = (self._me, self._connections.channel, self._name, self.addresses)
        rows = await self._connections.reader.call(_JOIN, *arguments, self._follows, self._lease_s)
        if self._is_in and not rows[0][0]:
            self.missed += self._follows
            logger.warning(
                "%s had forgotten this process; messages may be lost", self._connections.url
            )
        self._is_in = True

    async def beat(self) -> None:
        """Keep others sending; call it every few seconds."""
        with contextlib.suppress(BusUnavailableError):
            await self.join()
            self._beats += 1
            if self._beats % _TIDY_EVERY == 0:
                await self._connections.writer.call(_TIDY)

    async def run(self) -> None:
        """Take what arrives until cancelled."""
        while True:
            self._woken.clear()
            try:
                if self._must_join:
                    self._must_join = False
                    await self.join()
                while await self._read():
                    pass
                self._is_drained.set()
            except BusUnavailableError as error:
                logger.debug("reading failed: %s", error)
                self._must_join = True
                await asyncio.sleep(_PAUSE_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._woken.wait()

    async def catch_up(self) -> None:
        """Wait until all is taken that was there. Bound it with a deadline."""
        for _ in range(2):  # a look in progress may have begun before
            self._is_drained.clear()
            self._woken.set()
            await self._is_drained.wait()

    async def close(self) -> None:
        """Leave; the others stop sending at once."""
        self._connections.remove_listener(self._heard)
        if self._is_in:
            self._is_in = False
            with contextlib.suppress(BusUnavailableError):
                await self._connections.reader.call("SELECT pbus.stream_leave($1)", self._me)

    async def write(self, send_buffer: SendBuffer, payloads: Sequence[OutBatch]) -> list[int]:
        """Send payloads, in order, in one call; see the protocol.

        Raises:
            BusUnavailableError: Perhaps sent, perhaps not; sent again they are known as repeats.
        """
        lane = send_buffer.lane.value
        return await self._put([
            (lane, payload.stream.address, len(payload.lines), send_buffer.encode(payload))
            for payload in payloads
        ])

    def write_nowait(
        self, send_buffer: SendBuffer, payloads: list[OutBatch], on_end: OnWritten
    ) -> bool:
        """Nothing is sent without waiting; see posts."""
        del send_buffer, payloads, on_end
        return False

    async def result_of_nowait(
        self, send_buffer: SendBuffer, payloads: Sequence[OutBatch]
    ) -> list[int]:
        """Nothing was posted: send it now."""
        return await self.write(send_buffer, payloads)

    async def send_control(self, notes: Sequence[ControlFrame]) -> None:
        """Send notes to processes; see the protocol."""
        await self._put([(CONTROL, process, 1, note) for process, note in notes])

    async def probe(
        self, send_buffer: SendBuffer, notes: Sequence[ControlFrame], addresses: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        """Send notes, and count who is there, in one call; see the protocol."""
        lane = send_buffer.lane.value
        items: list[Item] = [(CONTROL, process, 1, note) for process, note in notes]
        items += [(lane, address, 0, None) for address in addresses]
        counts = await self._put(items)
        return counts[: len(notes)], counts[len(notes) :]

    def is_tap_copy(self, address: str) -> bool:
        """Nothing is: the server makes the copies for followers; see the protocol."""
        del address
        return False

    def backoff(self) -> Backoff:
        """Pauses; see the protocol."""
        return Backoff(_PAUSE_S, _PAUSE_S)

    async def _put(self, items: Sequence[Item]) -> list[int]:
        """Send payloads; returns how many processes each reached."""
        columns = zip(*items, strict=True)
        rows = await self._connections.writer.call(_PUT, self._connections.channel, *columns)
        counts: list[int] = rows[0][0]
        return counts

    async def _read(self) -> bool:
        """Take the next payloads, and have those before removed; False when there are none."""
        ranks, ids = zip(*self._read_ids, strict=True) if self._read_ids else ((), ())
        rows: list[Any] = await self._connections.reader.call(_READ, self._me, ranks, ids, _ROWS)
        self._read_ids = [(row["rank"], row["id"]) for row in rows]
        for row in rows:
            self.missed = max(self.missed, row["missed"]) if self._follows else 0
            self._take(row["rank"], row["payload"])
        return bool(rows)

    def _heard(self, payload: str) -> None:
        kind, _, tokens = payload.partition(" ")
        if not payload:  # connected, perhaps again
            self._must_join = self._is_in
            self._woken.set()
        elif kind == "w" and (not tokens or self._token in tokens):
            self._woken.set()
