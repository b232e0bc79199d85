"""Availability of the broker, as the supervisor sees it."""

import asyncio
import time
from collections.abc import Callable

from pbus.bus.base import WorkerBus

_POLL_S = 0.25
_STEADY_S = 3.0  # after an outage followers, too, need some time to reconnect
_MAX_REFUSALS = 1  # one may be a slow machine's
_AFTERMATH_S = 15.0  # workers that waited for the broker may end so much later: connecting, sending


class BrokerWatch:
    """Tells whether the broker is usable.

    Args:
        bus: The supervisor's bus.
        on_change: Called with False when the connection is lost and with True when it is back.

    Attributes:
        has_come_back: Set when the connection is back; cleared by its user.
    """

    def __init__(self, bus: WorkerBus, on_change: Callable[[bool], None]) -> None:
        self.has_come_back = asyncio.Event()
        self._bus = bus
        self._on_change = on_change
        self._is_running = True  # the embedded broker, if there is one
        self._was_connected = True
        self._connected_at = -_STEADY_S
        self._refusals = 0  # in a row: the disk is full, or the broker loads its data
        self._away_at = -_AFTERMATH_S

    @property
    def is_away(self) -> bool:
        """Whether the broker is unusable now: not connected, or it stores nothing."""
        return self._refusals > _MAX_REFUSALS or not self._is_connected

    @property
    def was_away(self) -> bool:
        """Whether it is unusable, or was within the last seconds."""
        return self.is_away or time.monotonic() - self._away_at < _AFTERMATH_S

    @property
    def is_steady(self) -> bool:
        """Whether the connection has been up long enough for followers to be back."""
        is_old = time.monotonic() - self._connected_at >= _STEADY_S
        return is_old and self._bus.is_connected

    def set_running(self, is_running: bool) -> None:  # noqa: FBT001
        """The embedded broker died or was restarted; the bus may notice neither in time."""
        self._is_running = is_running
        self.check()

    def count_write(self, *, is_stored: bool) -> None:
        """Count a write that the broker accepted or refused."""
        self._refusals = 0 if is_stored else self._refusals + 1

    async def run(self) -> None:
        """Check regularly until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(_POLL_S)

    def check(self) -> None:
        """Check the connection and report a change."""
        is_connected = self._is_connected
        if self.is_away:
            self._away_at = time.monotonic()
        if is_connected != self._was_connected:
            self._was_connected = is_connected
            if is_connected:
                self._connected_at = time.monotonic()
                self.has_come_back.set()
            self._on_change(is_connected)

    @property
    def _is_connected(self) -> bool:
        return self._is_running and self._bus.is_connected
