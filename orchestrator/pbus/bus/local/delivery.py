"""The delivery of one stored message, while its handler runs and for as long as it is held."""

from contextvars import ContextVar
from typing import Protocol


class Delivery(Protocol):
    """One stored message in the hands of its receiver.

    Attributes:
        attempt: 1 the first time a handler is started with it.
        is_last_attempt: An error now buries it.
        stored_at: When it was first stored, by the loop's clock; its age is the broker's.
    """

    attempt: int
    is_last_attempt: bool
    stored_at: float

    def hold(self) -> None:
        """Settle it later, with finish(), and not when the handler of the bus returns."""
        ...

    def finish(self, error: BaseException | None = None) -> None:
        """It is handled; with an error it is tried again, or buried after too many attempts."""
        ...

    def give_back(self) -> None:
        """It was not handled here: somebody else may."""
        ...


_current: ContextVar[Delivery | None] = ContextVar("pbus_delivery", default=None)


# Returns the stored message whose on_bus_message is running now; None on at-most-once buses.
current_delivery = _current.get


def set_current_delivery(delivery: Delivery | None) -> None:
    """Say what is being delivered in this task from now on."""
    _current.set(delivery)
