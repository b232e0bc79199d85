"""Where the bus delivers a worker's messages."""

from collections.abc import Callable, Coroutine
from typing import Any

from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusMessage


class WorkerSubscription(BusSubscriber):
    """Stands between the bus and a worker, so that no hook of a subclass can cut the worker off.

    Attributes:
        prefetch: How many messages of a mailbox shared with others it has use for at once.
    """

    def __init__(
        self,
        name: str,
        address: str,
        admits: Callable[[BusMessage], bool],
        receive: Callable[[BusMessage], Coroutine[Any, Any, None]],
        *,
        leaves: Callable[[], bool] = lambda: False,
        prefetch: int | None = None,
    ) -> None:
        self.name = name
        self._address = address
        self._admits = admits
        self._receive = receive
        self._leaves = leaves
        self.prefetch = prefetch

    @property
    def address(self) -> str:
        """Where other processes reach the worker."""
        return self._address

    @property
    def is_draining(self) -> bool:  # type: ignore[override]
        """Whether what it refuses is for others, or for the worker's next life."""
        return self._leaves()

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Ask the worker, just before delivery."""
        return self._admits(message)

    def on_bus_message(self, message: BusMessage) -> Coroutine[Any, Any, None]:
        """Give it to the worker."""
        return self._receive(message)
