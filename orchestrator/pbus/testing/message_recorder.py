"""Messages as they passed, and waiting for the next of a kind."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from pbus.errors import NotSeenError
from pbus.messages import BusMessage
from pbus.testing.change_signal import ChangeSignal

M = TypeVar("M", bound=BusMessage)

Where = Callable[[M], bool]

_SHOWN = 5  # of what came instead; more would hide the rest of the report
_SHOWN_CHARS = 200  # of each


class MessageRecorder:
    """What passed one place, in order.

    Args:
        place: For failures, such as "'greeter' sent".
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._all: list[BusMessage] = []
        self._untaken: list[BusMessage] = []
        self._bell = ChangeSignal()

    def __iter__(self) -> Iterator[BusMessage]:
        return iter(self._all)

    def add(self, message: BusMessage) -> None:
        """Note a message."""
        self._all.append(message)
        self._untaken.append(message)
        self._bell.ring()

    async def take(self, kind: type[M], where: Where[M] | None, limit_s: float) -> M:
        """The first message of a kind that nobody has taken yet, waiting for one.

        Raises:
            NotSeenError: None came in time; says what came instead.
        """
        await self._bell.until(lambda: self._find(kind, where) is not None, limit_s)
        found = self._find(kind, where)
        if found is None:
            which = "" if where is None else " like that"
            wanted = f"{self._place} no {kind.__name__}{which}"
            raise NotSeenError(wanted, limit_s, self._instead())
        self._untaken = [message for message in self._untaken if message is not found]
        return found

    def _find(self, kind: type[M], where: Where[M] | None) -> M | None:
        for message in self._untaken:
            if isinstance(message, kind) and (where is None or where(message)):
                return message
        return None

    def _instead(self) -> str:
        if not self._untaken:
            return "nothing else came"
        newest = "".join(f"\n  {_short(message)}" for message in self._untaken[-_SHOWN:])
        return f"others came ({len(self._untaken)}), the last:{newest}"


def _short(message: BusMessage) -> str:
    text = repr(message)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
