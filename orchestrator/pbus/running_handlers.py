"""Handlers in progress: of one worker, and the oldest of them as its lease carries it."""

import re
import time
from collections.abc import Awaitable
from typing import Self, TypeAlias, TypeVar

import msgspec

from pbus.names import MAX_NAME_LENGTH
from pbus.structs import Label

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_MOST_AGE_S = 1e9

T = TypeVar("T")
Entry: TypeAlias = tuple[str, object, float]  # name, message, since


class RunningHandler(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A handler in progress.

    Attributes:
        name: Of the hook or job: "on_bus_message", "job load"; of a child with its name before it.
        type: Of the message that it handles; "" where it handles none.
        source: The sender of that message.
        since: When it began, Unix seconds; of a lease that was read, by the reader's clock.
    """

    name: Label
    type: Label = ""
    source: Label = ""
    since: float = 0.0

    def __str__(self) -> str:
        of = f" of {self.type}" if self.type else ""
        return f"{self.name}{of} from {self.source}" if self.source else f"{self.name}{of}"

    def age_s(self, now: float) -> float:
        """Seconds since it began, within what is possible: clocks are moved.

        Args:
            now: Unix seconds.
        """
        return min(max(0.0, now - self.since), _MOST_AGE_S)


class HandlerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A handler in progress, as `pbus ps --json` has it.

    Attributes:
        running_s: Seconds since it began; see RunningHandler for the rest.
    """

    name: str
    type: str
    source: str
    running_s: float

    @classmethod
    def of(cls, handler: RunningHandler, now: float) -> Self:
        """The status of a handler; `now` in Unix seconds."""
        age_s = round(handler.age_s(now), 1)
        return cls(name=handler.name, type=handler.type, source=handler.source, running_s=age_s)

    def __str__(self) -> str:
        what = RunningHandler(name=self.name, type=self.type, source=self.source)
        return f"in {what}, {self.running_s:.0f} s"


class RunningHandlers:
    """The handlers of one worker that wait for something; those that never wait are not noted."""

    def __init__(self) -> None:
        self._running: dict[int, Entry] = {}  # oldest first

    def begin(self, name: str, message: object = None) -> Entry:
        """Note a handler.

        Args:
            name: Of the hook or job.
            message: Its message; an object without a source is none.

        Returns:
            For `end`, which must follow.
        """
        entry = (name, message, time.time())
        self._running[id(entry)] = entry
        return entry

    def end(self, entry: Entry) -> None:
        """Forget a handler that has ended."""
        del self._running[id(entry)]
        if not self._running:
            self._running.clear()  # gives its memory back

    async def track(self, name: str, message: object, rest: Awaitable[T]) -> T:
        """Note a handler while the rest of it is awaited; arguments as for `begin`."""
        entry = self.begin(name, message)
        try:
            return await rest
        finally:
            self.end(entry)

    def oldest(self) -> RunningHandler | None:
        """The handler that has run longest; None when none runs."""
        for name, message, since in self._running.values():
            source = getattr(message, "source", None)
            kind = type(message).__name__ if isinstance(source, str) else ""
            return RunningHandler(
                name=_label(name), type=_label(kind), source=_label(source or ""), since=since
            )
        return None


def _label(text: object) -> str:
    """A text of users' code as one short line."""
    return _UNPRINTABLE.sub("?", str(text)[:MAX_NAME_LENGTH])
