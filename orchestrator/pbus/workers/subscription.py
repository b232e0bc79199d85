"""The bus subscription of a worker."""

from collections.abc import Awaitable, Callable, Mapping

from pbus.bus.lane_gate import LaneGate
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusMessage, Lane


class WorkerSubscription(BusSubscriber):
    """Stands between the bus and a worker, so that no hook of a subclass cuts the worker off.

    Args:
        name: The worker's.
        address: The worker's for other processes.
        admits: Tells whether the worker takes in a message.
        receive: Takes in a message; returns what is left to be awaited, or None.
        gates: Of the worker's lanes.
        is_draining: Tells whether rejected stored messages are requeued rather than dropped.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        admits: Callable[[BusMessage], bool],
        receive: Callable[[BusMessage], Awaitable[None] | None],
        gates: Mapping[Lane, LaneGate],
        is_draining: Callable[[], bool],
    ) -> None:
        self.name = name
        self.gates = gates
        # Attributes in place of methods save a call for each message.
        self.accepts_bus_message = admits  # type: ignore[assignment, method-assign]
        self.on_bus_message = receive  # type: ignore[assignment, method-assign]
        self._address = address
        self._is_draining = is_draining

    def want_news(self) -> None:
        """Receive news of workers from now on, as one of many. Idempotent."""
        if self.news == "none":
            self.news = "few"
            if self.on_news_wanted is not None:
                self.on_news_wanted()

    @property
    def address(self) -> str:
        """The address for other processes."""
        return self._address

    @property
    def is_draining(self) -> bool:  # type: ignore[override]
        """Whether rejected stored messages are requeued."""
        return self._is_draining()
