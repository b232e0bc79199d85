"""Stored messages under a key: sealed on their way into the broker, opened on their way out."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pbus.bus.local.router import EVERYONE
from pbus.bus.queues.store import (
    DeadLetter,
    PutResult,
    QueueEntry,
    QueueStore,
    Settlement,
    StoredMessage,
)
from pbus.errors import BusUnavailableError, SealError
from pbus.messages import Lane
from pbus.seal import NO_SEAL, Seal

logger = logging.getLogger(__name__)

_REPLICA = re.compile(r"(.+)\.\d+")


def sealed(store: QueueStore, seal: Seal) -> QueueStore:
    """The store, with a seal around each message where the channel has a key."""
    return store if seal is NO_SEAL else SealedMailStore(store, seal)


class SealedMailStore:
    """A MailStore whose messages only holders of the key can write; see the protocol.

    A message is sealed for its address. One that was not, or not for this mailbox, becomes a dead
    letter when it is taken.

    Args:
        store: Where they are kept.
        seal: Of the channel.
    """

    def __init__(self, store: QueueStore, seal: Seal) -> None:
        self._store = store
        self._seal = seal
        self._strange: list[Settlement] = []  # to be dead letters as soon as the broker answers

    def __getattr__(self, name: str) -> Any:
        """All else is the store's own."""
        return getattr(self._store, name)

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

    async def take(
        self, wanted: Sequence[tuple[str, Lane, int]], *, holder: str, wait_s: float
    ) -> list[StoredMessage]:
        """Take messages that are held by nobody; see QueueStore."""
        taken = []
        for letter in await self._store.take(wanted, holder=holder, wait_s=wait_s):
            try:
                body = self._opened(letter.mailbox, letter.body)
            except SealError as error:
                self._strange.append(Settlement(letter=letter, how="bury", reason=error.message))
            else:
                taken.append(msgspec.structs.replace(letter, body=body))
        await self._bury_strange()
        return taken

    async def _bury_strange(self) -> None:
        """What cannot be settled now is settled with the next take: its neighbours must not wait."""
        strange, self._strange = self._strange, []
        if strange:
            try:
                await self._store.settle(strange)
            except BusUnavailableError as error:
                logger.debug("messages without a seal are settled later: %s", error)
                self._strange = strange + self._strange

    async def dead_letters(self, mailbox: str | None = None) -> list[DeadLetter]:
        """The dead letters, those that cannot be opened as they are; see QueueStore."""
        return [self._shown(letter) for letter in await self._store.dead_letters(mailbox)]

    def _sealed(self, one: QueueEntry) -> QueueEntry:
        context = one.address.encode()
        bodies = [self._seal.close("stored", body, context) for body in one.bodies]
        return msgspec.structs.replace(one, bodies=bodies)

    def _opened(self, mailbox: str, body: bytes) -> bytes:
        """The message, which was sent to the mailbox, to the replicas that it is one of, or to all."""
        try:
            return self._seal.open("stored", body, mailbox.encode())
        except SealError as error:
            group = _REPLICA.fullmatch(mailbox)
            for address in (EVERYONE, group[1] if group else EVERYONE):
                try:
                    return self._seal.open("stored", body, address.encode())
                except SealError:
                    continue
            raise error from None

    def _shown(self, letter: DeadLetter) -> DeadLetter:
        try:
            body = self._opened(letter.mailbox, letter.body)
        except SealError:
            return letter
        return msgspec.structs.replace(letter, body=body)
