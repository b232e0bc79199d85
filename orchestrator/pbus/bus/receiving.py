"""ReceivingBus: a bus that takes payloads from a broker, checks them and puts them into mailboxes."""

import abc
import asyncio
import contextlib
from typing import Any

from pbus.bus.base import WorkerBus
from pbus.bus.coalescing import NEWS
from pbus.bus.direct.direct_sockets import DirectSockets
from pbus.bus.direct.direct_transport import Copy
from pbus.bus.stream.flow_control import FlowControl
from pbus.bus.stream.provenance import Provenance
from pbus.bus.stream.receiver import Completion, StreamReceiver
from pbus.bus.stream.transport import Transport
from pbus.codec import Envelope, claimed_origin, decode_payload
from pbus.concurrency.background import TaskOwner
from pbus.errors import BusUnavailableError, MessageDecodeError, SealError
from pbus.messages import Lane
from pbus.seal import Seal
from pbus.settings import BusSettings


class ReceivingBus(WorkerBus):
    """The receiving half of a bus between processes; see Sink."""

    _receiver: StreamReceiver
    _flow_control: FlowControl
    _seal: Seal
    max_payload_bytes: int
    _provenance: Provenance | None = None  # checked where there is a key
    _direct: DirectSockets | None = None
    _settings: BusSettings
    carries_news = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._tasks = TaskOwner()
        self._hearing = asyncio.Lock()
        self._hears_news = False
        self._router.on_news_wanted = self._hear_news_soon

    def _receive(self, payload: bytes, *, is_note: bool) -> None:
        """Take one payload of any content: a credit note, or messages.

        Never raises: what reads the connection must not end by what it read.
        """
        self._router.turns.begin()
        try:
            if is_note:
                self._take_note(payload)
            else:
                plain = self._seal.open("payload", payload)
                self._receiver.receive(plain, limit=self.max_payload_bytes)
        except SealError as error:
            self._refuse(error, payload)
        except MessageDecodeError as error:
            self._refuse(self._seal.explain(error, payload), payload)
        except Exception as error:  # noqa: BLE001 - counted and said, at most once a second
            self._refuse(MessageDecodeError(f"a bug in pbus: {error!r}"))
        finally:
            self._router.turns.end()

    def open_payload(self, payload: bytes) -> tuple[Envelope, list[bytes]] | None:
        """Open a payload from a direct socket; None for one that was refused and counted."""
        try:
            return decode_payload(self._seal.open("payload", payload))
        except SealError as error:
            self._refuse(error, payload)
        except MessageDecodeError as error:
            self._refuse(self._seal.explain(error, payload), payload)
        return None

    def refuse(self, error: MessageDecodeError) -> None:
        """Count a payload from a direct socket that was refused, and say so."""
        self._refuse(error)

    def hosts(self, address: str) -> bool:
        """Whether an address is a subscriber's of this process."""
        return bool(self._router.receivers(address))

    def _refuse(self, error: MessageDecodeError, payload: bytes = b"") -> None:
        self.counters.unsealed += isinstance(error, SealError)
        self._router.refuse(error, claimed_origin(payload))

    def _take_note(self, note: bytes) -> None:
        self._flow_control.receive(note)

    # News of workers

    async def hear_news(self) -> None:
        """Receive news of workers, if a subscriber wants them; see WorkerBus."""
        async with self._hearing:
            if self.is_running and self._router.hears_news and not self._hears_news:
                await self._listen(NEWS)
                self._hears_news = True

    def _hear_news_soon(self) -> None:
        if self.is_running:
            self._tasks.spawn(self._try_to_hear(), "pbus news")

    async def _try_to_hear(self) -> None:
        with contextlib.suppress(BusUnavailableError):  # what was not confirmed is listened to yet
            await self.hear_news()

    def _own_addresses(self) -> list[str]:
        """The addresses of this process, that of news included where they are wanted."""
        self._hears_news = self._router.hears_news
        return [*self._router.addresses, *([NEWS] if self._hears_news else [])]

    @abc.abstractmethod
    async def _listen(self, address: str) -> None:
        """Have what is sent to an address come here; returns when the broker confirmed it."""

    # Direct sockets

    @property
    def _is_direct(self) -> bool:
        return DirectSockets.are_wanted(self._settings)

    def _with_direct(self, transport: Transport, copy: Copy | None) -> Transport:
        """A transport that uses direct sockets, too, if they are wanted and followers get copies."""
        if copy is None or not self._is_direct:
            return transport
        self._direct = DirectSockets(self, self._receiver, transport, copy)
        return self._direct.outbound

    def _tidy_direct(self) -> None:
        if self._direct is not None:
            self._direct.outbound.routes.tidy()

    def _end_direct(self) -> None:
        if self._direct is not None:
            self._direct.end()

    # What the receiver calls

    def deliver(
        self,
        sender: str,
        address: str,
        lane: Lane,
        lines: list[bytes],
        completion: Completion,
    ) -> int:
        """Put received messages into mailboxes; see Sink."""
        if self._provenance is None:
            return self._router.put_lines(address, lane, lines, completion)
        return self._provenance.deliver(sender, address, lane, lines, completion)

    def _put(self, address: str, lane: Lane, lines: list[bytes], completion: Completion) -> int:
        return self._router.put_lines(address, lane, lines, completion)

    def lost(self, sender: str, address: str, count: int) -> None:
        """Messages went missing; see Sink."""
        self._router.note_lost(sender, address, count)

    def grant(self, sender: str, address: str, number: int, consumed: int, limit: int) -> None:
        """Tell a sender how far it may go; see Sink."""
        self._flow_control.grant(sender, address, number, consumed, limit)
