"""Connections that heal: each link keeps one connection, for ever, with backoff."""

import asyncio
import contextlib
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from pbus.bus.redis.protocol import ReplyProtocol
from pbus.bus.redis.server.endpoint import CONNECT_TIMEOUT_S, TROUBLE, Endpoint, reason_of
from pbus.concurrency.backoff import Backoff
from pbus.errors import BusUnavailableError

logger = logging.getLogger(__name__)

CONFIRM_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 5.0  # a pipeline of at most about a mebibyte, answered
# Told a reply for each command, or why there is none.
OnEnd = Callable[[list[Any] | Exception], None]
_LOST = "the connection ended before the server answered"
_MOVED = "the channel is on another node of the cluster now"


async def open_connection(endpoint: Endpoint) -> AbstractConnection:
    """A connected connection; TROUBLE within the connect timeout otherwise."""
    connection = endpoint.connection()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:
        await close(connection)
        raise
    return connection


async def close(connection: AbstractConnection) -> None:
    """Disconnect without waiting for the other side."""
    with contextlib.suppress(*TROUBLE):
        await connection.disconnect(nowait=True)


class SubscriberConnection:
    """A connection that listens to channels, and goes on listening whatever happens.

    Args:
        endpoint: The server.
        name: For the log.
        on_payload: Called with each payload; what it raises is a bug, not trouble.
        pattern: Listen to this pattern, too.

    Attributes:
        opened: How often it was connected: what was sent to an earlier connection may be lost.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        on_payload: Callable[[bytes], None],
        *,
        pattern: bytes | None = None,
    ) -> None:
        self.name = name
        self.trouble: BaseException | None = None
        self.connects = 0
        self.opened = 0
        self._endpoint = endpoint
        self._on_payload = on_payload
        self._pattern = pattern
        self._is_held = False
        self._wanted: set[bytes] = set()
        self._confirmed: set[bytes] = set()
        self._waiting: dict[bytes, list[asyncio.Future[None]]] = {}
        self._connection: AbstractConnection | None = None
        self._feed: ReplyProtocol | None = None
        self._heard = 0  # bytes, as of the last beat
        self._quiet_beats = 0
        self._version = endpoint.version
        self._backoff = Backoff()

    @property
    def is_up(self) -> bool:
        """Whether the server has confirmed everything we want to hear."""
        return self._connection is not None and self._all_wanted() <= self._confirmed

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._listen()
            except TROUBLE as error:
                self._note_trouble(error)
            await self._backoff.pause()

    async def add(self, channels: Sequence[bytes]) -> None:
        """Listen to channels; returns when the server confirmed it.

        Raises:
            BusUnavailableError: It did not in time; we go on trying all the same.
        """
        self._wanted.update(channels)
        await self._command("SUBSCRIBE", channels)
        await self.confirmed(channels)

    async def confirmed(self, channels: Iterable[bytes]) -> None:
        """Wait until the server confirmed these channels."""
        loop = asyncio.get_running_loop()
        turns = []
        for channel in channels:
            if channel not in self._confirmed:
                turn = loop.create_future()
                self._waiting.setdefault(channel, []).append(turn)
                turns.append(turn)
        if not turns:
            return
        _, late = await asyncio.wait(turns, timeout=CONFIRM_TIMEOUT_S)
        if late:
            for turn in late:
                turn.cancel()
            why = reason_of(self.trouble) if self.trouble else "a subscription was not confirmed"
            raise BusUnavailableError(self._endpoint.url, why)

    def preset(self, channels: Sequence[bytes]) -> None:
        """Listen to channels from the next connection on; for use before run()."""
        self._wanted.update(channels)

    async def remove(self, channels: Sequence[bytes]) -> None:
        """Listen to channels no longer."""
        self._wanted.difference_update(channels)
        await self._command("UNSUBSCRIBE", channels)

    async def hold_pattern(self, *, is_held: bool) -> None:
        """Listen to the pattern no longer, or again; also from the next connection on."""
        if self._pattern is not None and is_held != self._is_held:
            self._is_held = is_held
            await self._command("PUNSUBSCRIBE" if is_held else "PSUBSCRIBE", (self._pattern,))

    async def wait_up(self) -> None:
        """Wait until everything wanted is confirmed. Bound it with a deadline."""
        await asyncio.gather(*(self._wait_one(channel) for channel in self._all_wanted()))

    async def beat(self) -> None:
        """Call it at intervals: a link that heard nothing asks, and is cut after another."""
        connection = self._connection
        if connection is None:
            return
        if self._feed is not None and self._feed.heard != self._heard:  # of a large payload, say
            self._heard, self._quiet_beats = self._feed.heard, 0
        self._quiet_beats += 1
        if self._quiet_beats >= 3:  # noqa: PLR2004 - heard nothing, asked, heard nothing
            self.trouble = TimeoutError("the connection went silent")
            await close(connection)
        elif self._version != self._endpoint.version:
            self.trouble = ConnectionError(_MOVED)
            await close(connection)
        elif self._quiet_beats >= 1:
            await self._command("PING", ())

    def _all_wanted(self) -> set[bytes]:
        if self._pattern is None or self._is_held:
            return self._wanted
        return self._wanted | {self._pattern}

    async def _wait_one(self, channel: bytes) -> None:
        if channel not in self._confirmed:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(channel, []).append(turn)
            await turn

    async def _command(self, verb: str, arguments: Sequence[bytes]) -> None:
        connection = self._connection
        if connection is None or (verb != "PING" and not arguments):
            return
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await connection.send_command(verb, *arguments, check_health=False)
        except TROUBLE as error:  # the reader notices, too, and connects again
            self._note_trouble(error)

    async def _listen(self) -> None:
        connection = await open_connection(self._endpoint)
        try:
            feed = ReplyProtocol(connection, self._handle)
            self._connection, self._feed, self._heard = connection, feed, 0
            self.opened += 1
            self._version = self._endpoint.version
            self._quiet_beats = 0
            await self._command("SUBSCRIBE", sorted(self._wanted))
            if self._pattern and not self._is_held:
                await self._command("PSUBSCRIBE", (self._pattern,))
            raise await feed.ended()
        finally:
            self._connection = None
            self._confirmed.clear()
            await close(connection)

    def _handle(self, reply: Any) -> None:
        self._quiet_beats = 0
        if type(reply) is list and reply[0] == b"message":  # as nearly always
            self._on_payload(reply[2])
            return
        if isinstance(reply, RedisError):
            if self.is_up and isinstance(reply, (ResponseError, BusyLoadingError)):
                return  # it refuses a PING: so it is alive, and the subscriptions with it
            raise reply
        if type(reply) is not list:
            return  # the answer to a PING on a connection without subscriptions
        kind = reply[0]
        if kind == b"pmessage":
            self._on_payload(reply[3])
        elif kind in {b"subscribe", b"psubscribe"}:
            self._confirm(reply[1])
        elif kind in {b"unsubscribe", b"punsubscribe"}:
            self._confirmed.discard(reply[1])

    def _confirm(self, channel: bytes) -> None:
        self._confirmed.add(channel)
        for turn in self._waiting.pop(channel, ()):
            if not turn.done():
                turn.set_result(None)
        if self.is_up:
            self.connects += 1 if self.trouble is not None or self.connects == 0 else 0
            if self.trouble is not None:
                logger.warning("%s: connected to %s again", self.name, self._endpoint.url)
                self.trouble = None
            self._backoff.reset()

    def _note_trouble(self, error: BaseException) -> None:
        _warn(self.name, self._endpoint, error, is_new=self.trouble is None)
        self.trouble = error


class _Call:
    """Commands under way, and what has been answered of them."""

    __slots__ = ("count", "due", "heard", "on_end", "replies", "unsent")

    def __init__(self, count: int, on_end: OnEnd, due: float, heard: int) -> None:
        self.count = count
        self.on_end = on_end
        self.heard = heard
        self.unsent = 0
        self.due = due
        self.replies: list[Any] = []


class CommandConnection:
    """A connection for commands and their replies, one pipeline at a time.

    Args:
        endpoint: The server.
        name: For the log.
    """

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.name = name
        self.trouble: BaseException | None = None
        self._endpoint = endpoint
        self._connection: AbstractConnection | None = None
        self._feed: ReplyProtocol | None = None
        self._lost: Exception | None = None  # why it ended, where no caller was told
        self._version = endpoint.version
        self._lock = asyncio.Lock()  # one pipeline at a time
        self._calls: deque[_Call] = deque()  # answered in this order
        self._watch: asyncio.TimerHandle | None = None

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def post(self, commands: Sequence[Sequence[Any]], on_end: OnEnd) -> bool:
        """Write commands here and now, if nothing is under way; returns False otherwise.

        Args:
            commands: A few small ones.
            on_end: Called once: with a reply for each, or with what request() would raise.
        """
        if (
            self._feed is None
            or self._calls
            or self._lock.locked()
            or self._version != self._endpoint.version
            or not self._feed.post(commands)
        ):
            return False
        self._expect(len(commands), on_end)
        return True

    async def connect(self) -> ReplyProtocol:
        """Connect now if need be; TROUBLE if that fails."""
        feed = self._feed
        if feed is None:
            connection = await open_connection(self._endpoint)
            feed = self._feed = ReplyProtocol(connection, self._take)
            feed.when_ended(self._note_end)
            self._connection = connection
            self._version = self._endpoint.version
        return feed

    async def request(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands in one write and read a reply for each.

        An error reply is returned in its place. TROUBLE (and a closed connection) when the
        server did not answer all of them.
        """
        async with self._lock:
            try:
                return await self._exchange(commands)
            except BaseException as error:
                await self.close()
                if isinstance(error, TROUBLE):
                    self._note_trouble(error)
                raise

    async def close(self) -> None:
        """Disconnect."""
        connection = self._connection
        self._drop(ConnectionError(_LOST))
        if connection is not None:
            await close(connection)

    async def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        lost, self._lost = self._lost, None
        if lost is not None:  # others may have lost theirs as well: the sender has to know
            raise lost
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._send(commands, functools.partial(_resolve, answered))
            return await answered
        finally:
            answered.cancel()

    async def _send(self, commands: Sequence[Sequence[Any]], on_end: OnEnd) -> None:
        feed = await self.connect()
        if self._version != self._endpoint.version:
            raise ConnectionError(_MOVED)
        self._expect(len(commands), on_end)
        if not feed.post(commands):
            raise ConnectionError(_LOST)

    def _expect(self, count: int, on_end: OnEnd) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + WRITE_TIMEOUT_S
        heard = self._feed.heard if self._feed else 0
        self._calls.append(_Call(count, on_end, due, heard))
        if self._watch is None:
            self._watch = loop.call_at(due, self._look_around)

    def _look_around(self) -> None:
        """Cut the connection of a server that does not answer; one timer is for all calls."""
        self._watch = None
        if not self._calls:
            return
        loop, call = asyncio.get_running_loop(), self._calls[0]
        if loop.time() >= call.due and self._has_moved(call):
            call.due = loop.time() + WRITE_TIMEOUT_S
        if loop.time() < call.due:
            self._watch = loop.call_at(call.due, self._look_around)
            return
        self._cut(TimeoutError("no answer in time"))

    def _has_moved(self, call: "_Call") -> bool:
        """Whether anything was received or sent lately: large ones take their time."""
        if self._feed is None:
            return False
        before, now = (call.heard, call.unsent), (self._feed.heard, self._feed.unsent)
        call.heard, call.unsent = now
        return now != before

    def _take(self, reply: Any) -> None:
        if type(reply) is not int:  # what PUBLISH, nearly always, is answered by
            if isinstance(reply, ResponseError):
                self._endpoint.on_error_reply(reply)
            elif isinstance(reply, RedisConnectionError):  # a refusal that ends the connection
                raise reply
        if not self._calls:
            raise RedisConnectionError("the server sent an answer without a question")
        if self.trouble is not None:
            logger.warning("%s: connected to %s again", self.name, self._endpoint.url)
            self.trouble = None
        call = self._calls[0]
        call.replies.append(reply)
        if len(call.replies) == call.count:
            self._calls.popleft()
            call.on_end(call.replies)

    def _note_end(self, feed: ReplyProtocol, error: Exception) -> None:
        if feed is self._feed:
            self._lost = None if self._calls else error
            self._cut(error)

    def _cut(self, error: Exception) -> None:
        feed = self._feed
        if self._calls:
            self._note_trouble(error)
        self._drop(error)
        if feed is not None:
            feed.abort()

    def _drop(self, error: Exception) -> None:
        """Leave the connection, and tell those who wait for it."""
        self._connection = self._feed = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        calls, self._calls = self._calls, deque()
        for call in calls:
            call.on_end(error)

    def _note_trouble(self, error: BaseException) -> None:
        _warn(self.name, self._endpoint, error, is_new=self.trouble is None)
        self.trouble = error


def _warn(name: str, endpoint: Endpoint, error: BaseException, *, is_new: bool) -> None:
    """Log why a connection ended, once; a server that loads its file refuses all connections."""
    if isinstance(error, BusyLoadingError):
        endpoint.complain(error)
    elif is_new:
        logger.warning("%s: lost %s (%s); trying again", name, endpoint.url, reason_of(error))


def _resolve(answered: asyncio.Future[list[Any]], outcome: list[Any] | Exception) -> None:
    if answered.done():
        return
    if isinstance(outcome, Exception):
        answered.set_exception(outcome)
    else:
        answered.set_result(outcome)
