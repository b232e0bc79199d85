"""Following all traffic of a channel, without the workers taking part."""

from collections.abc import AsyncIterator
from typing import Protocol, Self

import msgspec

from pbus.codec import Header


class TapMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message seen on the channel.

    Attributes:
        header: Its decoded header.
        body: The whole message, one line of JSON.
        lane: "d" or "s".
        missed: How many messages the follower is known to have missed up to now.
    """

    header: Header
    body: bytes
    lane: str
    missed: int = 0

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.body)


class Tap(Protocol):
    """A follower: ``async with bus.tap() as tap: async for item in tap: ...``.

    Attributes:
        missed: Messages known to have passed unseen (a slow follower, a lost connection).
    """

    missed: int

    async def __aenter__(self) -> Self:
        """Begin to follow; returns when the broker confirmed it."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Stop following."""
        ...

    def __aiter__(self) -> AsyncIterator[TapMessage]:
        """Messages as they pass."""
        ...
