"""Following a channel on the server: a pattern subscription, which no worker takes part in."""

import asyncio
import contextlib
from typing import Self

from pbus.bus.coalescing import EVERYONE
from pbus.bus.redis.connections import CONFIRM_TIMEOUT_S, CommandConnection, SubscriberConnection
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.server.endpoint import TROUBLE, Endpoint
from pbus.bus.tap_base import FOLLOWER_LEASE_S, BrokerTap
from pbus.errors import BusUnavailableError
from pbus.ids import new_token
from pbus.seal import Seal

# To everyone's system channel: copy to followers what does not pass here.
FOLLOWER_NOTE = b'["follower"]'
WHO_COPIES = FOLLOWER_NOTE + b"?"  # the same, to be answered; the question's token follows
COPYING_NOTE = b'["copying"]'  # the answer, with the token: behind all copies so far
QUESTION_BYTES = len(WHO_COPIES) + 64  # at most
_ANSWERS_S = 0.5  # for which a follower waits for them; a process may be busy


class RedisTap(BrokerTap):
    """A follower of one channel.

    Args:
        endpoint: The server.
        names: How channels are named.
        seal: Of the channel.
        asks: Stored and direct messages do not pass here by themselves: ask senders for copies while it
            is open.

    Attributes:
        answers: How many processes have answered the last question.
    """

    def __init__(self, endpoint: Endpoint, names: Keys, seal: Seal, *, asks: bool = False) -> None:
        super().__init__(seal)
        self._names = names
        self._endpoint = endpoint
        self._asking = CommandConnection(endpoint, "tap asking") if asks else None
        self.answers = 0
        self._token = b""  # of the last question
        self._answered = asyncio.Event()
        self._link = SubscriberConnection(endpoint, "tap", self._take, pattern=names.everything())

    async def __aenter__(self) -> Self:
        self._start_tasks(self._link.run)
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                await self._link.wait_up()
        except TimeoutError:
            await self.__aexit__()
            raise BusUnavailableError(self._endpoint.url, "it cannot be followed") from None
        if self._asking is not None:
            await self._ask_who_copies(self._asking)
        return self

    async def catch_up(self) -> None:
        """Wait for the answer to a subscription: all that was sent before has come by then.

        Before it, for those of the processes that copy: their copies have been sent by then.
        """
        if not self._link.is_up:
            return
        if self._asking is not None:
            await self._ask_who_copies(self._asking)
        with contextlib.suppress(BusUnavailableError):
            await self._link.add([self._names.lane("s", new_token())])

    async def pause(self) -> None:
        """Leave the pattern, so that the server copies nothing for this connection."""
        await self._link.hold_pattern(is_held=True)

    async def resume(self) -> None:
        """Listen to the pattern again."""
        await self._link.hold_pattern(is_held=False)

    async def _disconnect(self) -> None:
        if self._asking is not None:
            await self._asking.close()

    async def _heartbeat(self) -> None:
        await self._link.beat()
        await self._ask()

    async def _ask_who_copies(self, link: CommandConnection) -> None:
        """Tell senders that there are followers, and wait a moment for all to have heard it."""
        self.answers, self._token = 0, new_token().encode()
        await self._ask(WHO_COPIES + self._token)
        expected = 0
        with contextlib.suppress(*TROUBLE):
            name = self._names.lane("s", EVERYONE)
            (reply,) = await link.request([(b"PUBSUB", b"NUMSUB", name)])
            expected = reply[1] if isinstance(reply, list) else 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWERS_S):
                while self.answers < expected:
                    self._answered.clear()
                    await self._answered.wait()

    async def _ask(self, text: bytes = FOLLOWER_NOTE) -> None:
        """Tell senders, for another while, that there are followers."""
        if self._asking is None:
            return
        lease_ms = int(FOLLOWER_LEASE_S * 1000)
        note = self._seal.close("note", text)
        with contextlib.suppress(*TROUBLE):  # asked again with the next beat
            await self._asking.request([
                (b"SET", self._names.key("followed"), b"1", b"PX", lease_ms),
                (b"PUBLISH", self._names.lane("s", EVERYONE), note),
            ])

    def _take(self, payload: bytes) -> None:
        if payload.startswith(COPYING_NOTE):
            if payload.startswith(self._token, len(COPYING_NOTE)):
                self.answers += 1
                self._answered.set()
        elif not payload.startswith(FOLLOWER_NOTE):
            self._follow(payload)
