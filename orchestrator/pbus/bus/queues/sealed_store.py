"""Stored messages under a key: sealed on their way into the broker, opened on their way out."""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from pbus.bus.claims import Claim, Claims
from pbus.bus.coalescing import EVERYONE
from pbus.bus.queues.store import (
    DeadLetter,
    PutNow,
    PutResult,
    QueueEntry,
    QueueStore,
    Settlement,
    StoredMessage,
)
from pbus.codec import origin_of
from pbus.errors import BusUnavailableError, MessageDecodeError, SealError, SourceError
from pbus.messages import Lane
from pbus.names import names_of
from pbus.seal import Seal

logger = logging.getLogger(__name__)

# Between a message and who sent it. The last one counts: an incarnation has none.
_BY_HOLDER, _BY_OTHER = b"\t+", b"\t-"
_MARK_BYTES = 2


def signed(line: bytes, sender: str, *, is_holder: bool) -> bytes:
    """A message with the process that sent it, as it is sealed.

    Args:
        line: The message.
        sender: The incarnation of the process.
        is_holder: Whether its source is a name that this process had taken.
    """
    return line + (_BY_HOLDER if is_holder else _BY_OTHER) + sender.encode()


def unsigned(data: bytes) -> tuple[bytes, str, bool]:
    """Return what was signed: the message, the sending process, whether that had the source's name.

    Raises:
        SealError: It was not signed.
    """
    at = data.rfind(b"\t")
    mark = data[at : at + _MARK_BYTES]
    if at < 0 or mark not in {_BY_HOLDER, _BY_OTHER}:
        raise SealError("it does not say which process sent it")
    return data[:at], data[at + _MARK_BYTES :].decode(errors="replace"), mark == _BY_HOLDER


class SealedQueueStore:
    """A QueueStore whose messages only holders of the key can write; see the protocol.

    A message is sealed for its address, with the process that sent it and whether that had taken
    the name of its source: so what a worker sent counts when it is dead and another has its name.
    What was not sealed, or not for this queue, becomes a dead letter when it is taken; so does
    what speaks in the name of a worker that another process has, see Claims.

    Args:
        store: Where they are kept.
        seal: Of the channel.
        names: Those that this process took, at any time.
        claims: Say who may use which name.
        refuse: Told why something became a dead letter.
    """

    def __init__(
        self,
        store: QueueStore,
        seal: Seal,
        names: Collection[str],
        claims: Claims,
        refuse: Callable[[MessageDecodeError], None],
    ) -> None:
        self._store = store
        self._seal = seal
        self._names = names
        self._claims = claims
        self._refuse = refuse
        # What is pushed has to be opened, and perhaps asked about: fetch() returns it.
        self.on_push: Callable[[StoredMessage], None] | None = None
        self._rejected: list[Settlement] = []  # to be dead letters as soon as the broker answers

    def __getattr__(self, name: str) -> Any:
        """All else is the store's own."""
        return getattr(self._store, name)

    @property
    def put_now(self) -> PutNow | None:
        """See QueueStore."""
        put_now = self._store.put_now
        return put_now and (lambda entry, on_end: put_now(self._sealed(entry), on_end))

    @property
    def on_lost(self) -> Callable[[str, int], None]:
        """See QueueStore."""
        return self._store.on_lost

    @on_lost.setter
    def on_lost(self, listener: Callable[[str, int], None]) -> None:
        self._store.on_lost = listener

    async def put(self, batch: Sequence[QueueEntry]) -> list[PutResult]:
        """Store a batch; see QueueStore."""
        return await self._store.put([self._sealed(one) for one in batch])

    async def fetch(
        self, wanted: Sequence[tuple[str, Lane, int]], *, consumer: str, wait_s: float
    ) -> list[StoredMessage]:
        """Fetch messages that are not in flight; see QueueStore."""
        messages: list[StoredMessage] = []
        claims: dict[str, Claim] = {}  # by the message's key
        for message in await self._store.fetch(wanted, consumer=consumer, wait_s=wait_s):
            try:
                line, claim = self._opened(message.queue, message.body)
            except SealError as error:
                self._dead_letter(message, error)
                continue
            messages.append(msgspec.structs.replace(message, body=line))
            if claim is not None:
                claims[message.receipt_handle] = claim
        if claims:
            messages = await self._allowed(messages, claims)
        await self._settle_rejected()
        return messages

    async def _allowed(
        self, messages: list[StoredMessage], claims: dict[str, Claim]
    ) -> list[StoredMessage]:
        """Those that have a source which their sender may use."""
        wrong = await self._claims.wrong(set(claims.values()))
        if not wrong:
            return messages
        allowed = []
        for message in messages:
            claim = claims.get(message.receipt_handle)
            if claim in wrong:
                self._dead_letter(message, SourceError(wrong[claim]))
            else:
                allowed.append(message)
        return allowed

    def _dead_letter(self, message: StoredMessage, error: MessageDecodeError) -> None:
        self._refuse(error)
        self._rejected.append(Settlement(message=message, how="dead_letter", reason=error.message))

    async def _settle_rejected(self) -> None:
        """Dead-letter what is unsealed; with the next fetch if not now: its neighbours must not wait."""
        rejected, self._rejected = self._rejected, []
        if rejected:
            try:
                await self._store.settle(rejected)
            except BusUnavailableError as error:
                logger.debug("messages without a seal are settled later: %s", error)
                self._rejected = rejected + self._rejected

    async def dead_letters(self, queue: str | None = None) -> list[DeadLetter]:
        """The dead letters, those that cannot be opened as they are; see QueueStore."""
        return [self._shown(message) for message in await self._store.dead_letters(queue)]

    def _sealed(self, one: QueueEntry) -> QueueEntry:
        context = one.address.encode()
        bodies = []
        head, is_holder = b"", False
        for body in one.bodies:
            if not (head and body.startswith(head)):
                head, source = origin_of(body)
                is_holder = one.is_vouched or source in self._names
            plain = signed(body, one.sender, is_holder=is_holder)
            bodies.append(self._seal.close("stored", plain, context))
        return msgspec.structs.replace(one, bodies=bodies)

    def _opened(self, queue: str, body: bytes) -> tuple[bytes, Claim | None]:
        """The message, and what its sender claims, if that is to be judged."""
        line, sender, is_holder = unsigned(self._unsealed(queue, body))
        return line, None if is_holder else (sender, origin_of(line)[1])

    def _unsealed(self, queue: str, body: bytes) -> bytes:
        """Open a message that was sent to the queue, to the replicas that it is one of, or to all."""
        try:
            return self._seal.open("stored", body, queue.encode())
        except SealError as error:
            for address in (EVERYONE, *names_of(queue)[1:]):
                try:
                    return self._seal.open("stored", body, address.encode())
                except SealError:
                    continue
            raise error from None

    def _shown(self, message: DeadLetter) -> DeadLetter:
        try:
            body, _ = self._opened(message.queue, message.body)
        except SealError:
            return message
        return msgspec.structs.replace(message, body=body)
