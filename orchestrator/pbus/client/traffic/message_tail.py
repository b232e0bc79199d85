"""Following the messages of a channel; the workers take no part in it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, Self

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.presence import Presence
from pbus.bus.tap import Tap, TapMessage
from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.type_names import category_of
from pbus.codec import Header
from pbus.errors import BusError
from pbus.messages import Category
from pbus.structs import DECODE_ERRORS
from pbus.trace_context import trace_id_of

_HEADER: Final = frozenset(Header.__struct_fields__)

_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class TailMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message that passed on the channel.

    Attributes:
        time: When it was made, Unix seconds.
        target: None for everyone.
        size_bytes: Bytes on the wire.
        is_urgent: It travelled in the system lane.
        is_reached: A process was there to take it.
        is_local: It stayed in its process, and this is a copy: frames and long ones by their size.
        body: The whole message as JSON.
        key: Chose the replica that it went to; None where it has none.
        traceparent: As it was sent, unchecked; None where it begins a trace.
        has_body: Whether the body was kept; without it there is the header only.
    """

    time: float
    id: str
    type: str
    category: Category
    source: str
    target: str | None
    size_bytes: int
    is_urgent: bool
    is_reached: bool = True
    is_local: bool = False
    body: bytes = msgspec.field(default=b"")
    key: str | None = None
    traceparent: str | None = None
    has_body: bool = True

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to, 32 hex digits."""
        return trace_id_of(self)

    @property
    def data(self) -> dict[str, Any]:
        """The type's own fields; empty where the body is no JSON object."""
        return {
            key: msgspec.json.decode(raw) for key, raw in (data_fields(self.body) or {}).items()
        }

    @property
    def without_body(self) -> Self:
        """Its header only."""
        return msgspec.structs.replace(self, body=b"", has_body=False)

    @classmethod
    def of(cls, item: TapMessage, *, is_reached: bool = True) -> Self:
        """A message that a tap saw."""
        header, is_urgent = item.header, item.lane == "s"
        return cls(
            time=header.time,
            id=header.id,
            type=header.type,
            category=category_of(header.type, is_urgent=is_urgent),
            source=header.source,
            target=header.target,
            size_bytes=item.size,
            is_urgent=is_urgent,
            is_reached=is_reached,
            is_local=item.is_local,
            body=item.body,
            key=header.key,
            traceparent=header.traceparent,
        )


def data_fields(body: bytes) -> dict[str, msgspec.Raw] | None:
    """A message's own fields, still encoded; None where it is not the JSON of an object."""
    try:
        fields = _fields_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return {key: raw for key, raw in fields.items() if key not in _HEADER}


def message_fields(message: TailMessage) -> dict[str, Any]:
    """All that is known of a message, by name: what it is matched by, and what programs read.

    Its own fields are still encoded; None where the body is no JSON object.
    """
    shown: dict[str, Any] = {
        "time": message.time,
        "id": message.id,
        "type": message.type,
        "category": message.category,
        "source": message.source,
        "target": message.target,
        "trace_id": message.trace_id,
        "size_bytes": message.size_bytes,
    }
    if message.has_body:
        shown["data"] = data_fields(message.body)
    if message.key is not None:
        shown["key"] = message.key
    if not message.is_reached:
        shown["undelivered"] = True
    if message.is_local:
        shown["local"] = True
    return shown


def decoded_fields(message: TailMessage) -> dict[str, Any]:
    """All that is known of a message, its own fields decoded."""
    fields = message_fields(message)
    if fields.get("data") is not None:
        try:
            fields["data"] = message.data
        except DECODE_ERRORS:
            fields["data"] = None
    return fields


class Choice:
    """The choice among messages that meet the conditions of a filter, but for its expression."""

    def __init__(self, chosen: Filter) -> None:
        self._chosen = chosen
        self._matched = 0

    def takes(self, message: TailMessage) -> bool:
        """Whether a message is one that is given."""
        expression = self._chosen.expression
        if expression is not None and not expression.holds(decoded_fields(message)):
            return False
        self._matched += 1
        return self._chosen.is_in_sample(self._matched)


class MessageTail:
    """Follows messages: ``async for message in tail``, or within ``async with`` to end it early.

    Args:
        bus: Started.
        chosen: Which messages.

    Attributes:
        passed: Messages that have passed so far, chosen or not.
    """

    def __init__(self, bus: WorkerBus, chosen: Filter) -> None:
        self._bus = bus
        self._chosen = chosen
        self.passed = 0
        self._choice = Choice(chosen)
        self._presence = Presence(bus)
        self._tap: Tap | None = None
        self._items: AsyncIterator[TapMessage] | None = None
        self._item: TapMessage | None = None  # the next one to give
        self._is_finished = False
        self._is_closed = False

    @property
    def missed(self) -> int:
        """Messages known to have passed unseen: a slow reader, a lost connection."""
        return 0 if self._tap is None else self._tap.missed

    async def __aenter__(self) -> Self:
        if self._tap is None and not self._is_closed:
            self._tap = self._bus.tap()
            await self._tap.__aenter__()
            self._items = aiter(self._tap)
            with contextlib.suppress(BusError):  # looked at again with the next message
                await self._presence.look()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TailMessage:
        await self.__aenter__()
        if self._tap is None or self._items is None or self._is_closed:
            raise StopAsyncIteration
        while True:
            message = await self._next_message()
            if self._choice.takes(message):
                return message if self._chosen.has_bodies else message.without_body

    async def _next_message(self) -> TailMessage:
        while self._item is None:
            item = await self._next_item()
            self.passed += 1
            self._presence.note(item)
            if self._chosen.passes(item):
                self._item = item
        item, target = self._item, self._item.header.target
        is_reached = (
            item.is_local or self._presence.knows(target) or await self._presence.reaches(target)
        )
        self._item = None  # not before: the wait may be cancelled
        return TailMessage.of(item, is_reached=is_reached)

    async def _next_item(self) -> TapMessage:
        assert self._tap is not None  # noqa: S101 - callers checked
        assert self._items is not None  # noqa: S101 - likewise
        try:
            return await anext(self._items)
        except asyncio.CancelledError:  # of this wait: the next one goes on
            self._items = aiter(self._tap)
            raise

    def rest(self) -> Iterator[TailMessage]:
        """The messages to be given when following ends: none."""
        return iter(())

    async def read(
        self, take: Callable[[TailMessage], None], duration_s: float | None = None
    ) -> None:
        """Give messages to a function until it is cancelled, with all that passed before.

        Args:
            take: What it raises ends the reading.
            duration_s: Ends by itself after so many seconds; None for no limit.
        """
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(duration_s):
                    async for message in self:
                        take(message)
        finally:
            await self.finish()
            async for message in self:
                take(message)

    async def finish(self) -> None:
        """Follow no longer; what passed before can still be read, then the iteration ends."""
        if self._tap is not None and not self._is_finished:
            self._is_finished = True
            await self._tap.catch_up()
            await self._tap.__aexit__(None, None, None)

    async def close(self) -> None:
        """Follow no longer. Idempotent."""
        was_closed, self._is_closed = self._is_closed, True
        if self._tap is not None and not was_closed and not self._is_finished:
            await self._tap.__aexit__(None, None, None)
