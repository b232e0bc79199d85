"""Following the messages of a channel; the workers take no part in it."""

import asyncio
import fnmatch
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final, Self, TypedDict

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.tap import Tap, TapMessage
from pbus.client.traffic.presence import Presence
from pbus.codec import Header
from pbus.messages import BusMessage, Category
from pbus.names import names_of
from pbus.trace_context import trace_id_of

_HEADER: Final = frozenset(Header.__struct_fields__)
# What a client asks before it sends; followed only where these types are named.
OWN_TYPES: Final = frozenset({
    "BusAcceptanceRequestMessage",
    "BusAcceptanceResponseMessage",
    "BusProbeMessage",
})

Names = str | Iterable[str]

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


def short_type(name: str) -> str:
    """A catalogue type without what they all begin and end with."""
    core = name.removeprefix("Bus").removesuffix("Message")
    return core if core and len(core) == len(name) - len("BusMessage") else name


def category_of(type_name: str, *, is_urgent: bool) -> Category:
    """The category of a type; one this process does not know goes by its lane."""
    known = BusMessage.catalogue.get(type_name)
    if known is not None:
        category: Category = known.category
        return category
    return "system" if is_urgent else "data"


def data_fields(body: bytes) -> dict[str, msgspec.Raw] | None:
    """A message's own fields, still encoded; None where it is not the JSON of an object."""
    try:
        fields = _fields_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return {key: raw for key, raw in fields.items() if key not in _HEADER}


class TailTerms(TypedDict, total=False):
    """The conditions of Client.tail() as keywords."""

    source: Names
    target: Names
    type: Names
    category: Category | Iterable[Category]
    key: Names
    pattern: str | None


@dataclass(frozen=True)
class Filter:
    """Every kind of condition given must hold; of several of one kind, one of them.

    Attributes:
        sources: Names or patterns; a replica matches its group's name, too.
        targets: Likewise; ``*`` for broadcasts.
        types: Names or patterns, whole (BusFrameMessage) or short (Frame).
        keys: Keys or patterns.
        pattern: Looked for in the message as it travelled.
    """

    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    categories: frozenset[Category] = frozenset()
    keys: tuple[str, ...] = ()
    pattern: re.Pattern[bytes] | None = None

    def passes(self, item: TapMessage) -> bool:
        """Whether a message meets the conditions."""
        header = item.header
        if header.type in OWN_TYPES and not self.types:
            return False
        return (
            _is_one_of(self.sources, names_of(header.source))
            and _is_one_of(self.targets, _target_names(header.target))
            and _is_one_of(self.types, (header.type, short_type(header.type)))
            and _is_one_of(self.keys, _keys_of(header))
            and (not self.categories or self._category(item) in self.categories)
            and (self.pattern is None or self.pattern.search(item.body) is not None)
        )

    @staticmethod
    def _category(item: TapMessage) -> Category:
        return category_of(item.header.type, is_urgent=item.lane == "s")


def _is_one_of(patterns: tuple[str, ...], names: Iterable[str]) -> bool:
    if not patterns:
        return True
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _keys_of(header: Header) -> tuple[str, ...]:
    return () if header.key is None else (header.key,)


def _target_names(target: str | None) -> tuple[str, ...]:
    """A broadcast reaches everyone, but only `*` asks for it."""
    return ("*",) if target is None else names_of(target)


class MessageTail:
    """Follows messages: ``async for message in tail``, or within ``async with`` to end it early.

    Args:
        bus: Started.
        chosen: Which messages.
    """

    def __init__(self, bus: WorkerBus, chosen: Filter) -> None:
        self._bus = bus
        self._chosen = chosen
        self._presence = Presence(bus)
        self._tap: Tap | None = None
        self._items: AsyncIterator[TapMessage] | None = None
        self._item: TapMessage | None = None  # the next one to give
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
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TailMessage:
        await self.__aenter__()
        if self._tap is None or self._items is None or self._is_closed:
            raise StopAsyncIteration
        while self._item is None:
            try:
                item = await anext(self._items)
            except asyncio.CancelledError:  # of this wait: the next one goes on
                self._items = aiter(self._tap)
                raise
            if self._chosen.passes(item):
                self._item = item
        item, target = self._item, self._item.header.target
        is_reached = (
            item.is_local or self._presence.knows(target) or await self._presence.reaches(target)
        )
        self._item = None  # not before: the wait may be cancelled
        return TailMessage.of(item, is_reached=is_reached)

    async def close(self) -> None:
        """Follow no longer. Idempotent."""
        was_closed, self._is_closed = self._is_closed, True
        if self._tap is not None and not was_closed:
            await self._tap.__aexit__(None, None, None)
