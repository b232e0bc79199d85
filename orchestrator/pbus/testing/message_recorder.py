"""Messages in order, and waiting for the next of a kind."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from pbus.errors import NotSeenError
from pbus.messages import BusMessage
from pbus.testing.change_signal import ChangeSignal

M = TypeVar("M", bound=BusMessage)

Where = Callable[[M], bool]

_SHOWN = 5  # other messages in an error; more would hide the rest of the report
_SHOWN_CHARS = 200  # of each


class MessageRecorder:
    """The messages of one place, in order.

    Args:
        place: Names the place in errors, such as "'greeter' sent".
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._all: list[BusMessage] = []
        self._unread: list[BusMessage] = []
        self._changes = ChangeSignal()

    def __iter__(self) -> Iterator[BusMessage]:
        return iter(self._all)

    def add(self, message: BusMessage) -> None:
        """Record a message."""
        self._all.append(message)
        self._unread.append(message)
        self._changes.notify()

    async def next(self, kind: type[M], where: Where[M] | None, timeout_s: float) -> M:
        """Wait for the first message of a kind that no call returned before.

        Raises:
            NotSeenError: None came in time; names the others that came.
        """
        await self._changes.wait_for(lambda: self._find(kind, where) is not None, timeout_s)
        found = self._find(kind, where)
        if found is None:
            which = "" if where is None else " like that"
            wanted = f"{self._place} no {kind.__name__}{which}"
            raise NotSeenError(wanted, timeout_s, self._others())
        self._unread = [message for message in self._unread if message is not found]
        return found

    def _find(self, kind: type[M], where: Where[M] | None) -> M | None:
        for message in self._unread:
            if isinstance(message, kind) and (where is None or where(message)):
                return message
        return None

    def _others(self) -> str:
        if not self._unread:
            return "nothing else came"
        newest = "".join(f"\n  {_short(message)}" for message in self._unread[-_SHOWN:])
        return f"others came ({len(self._unread)}), the last:{newest}"


def _short(message: BusMessage) -> str:
    text = repr(message)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
