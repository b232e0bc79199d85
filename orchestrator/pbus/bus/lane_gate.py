"""The gate of a lane: what may be handled now, while a handler in progress waits."""

from collections.abc import Callable

from pbus.messages import BusMessage


def _nothing() -> None:
    """Tell no reader."""


class LaneGate:
    """Decides which messages of one lane may be handled now; the others keep their order and wait.

    Args:
        passes: Whether messages of a class are handled while the lane is held.
        is_shut: Whether nothing is handled until open().

    Attributes:
        is_free: Whether everything may be handled.
        is_shut: Whether nothing may.
        on_change: Called when more may be handled than before.
    """

    __slots__ = ("_holds", "_passes", "is_free", "is_shut", "on_change")

    def __init__(
        self,
        passes: Callable[[type[BusMessage]], bool] = lambda _: False,
        *,
        is_shut: bool = False,
    ) -> None:
        self._passes = passes
        self._holds = 0
        self.is_shut = is_shut
        self.is_free = not is_shut
        self.on_change: Callable[[], None] = _nothing

    def lets(self, kind: type[BusMessage] | None) -> bool:
        """Whether a message of this class may be handled; what is no message is let in."""
        return self.is_free or (not self.is_shut and (kind is None or self._passes(kind)))

    def open(self) -> None:
        """Handle messages, unless they are held. Idempotent."""
        self.is_shut = False
        self._tell()

    def hold(self) -> None:
        """Let in only what passes, until release() was called as often."""
        self._holds += 1
        self.is_free = False

    def release(self) -> None:
        """End one hold()."""
        self._holds -= 1
        self._tell()

    def _tell(self) -> None:
        self.is_free = not self.is_shut and not self._holds
        self.on_change()
