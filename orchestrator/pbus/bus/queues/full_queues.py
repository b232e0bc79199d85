"""The addresses that have no room, and why; said once a minute."""

import logging
import time

logger = logging.getLogger(__name__)

_SAY_EVERY_S = 60.0


class FullQueues:
    """Remembers which bound was reached at each address."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._said: dict[str, float] = {}

    def note(self, address: str, reason: str) -> None:
        """There was no room; an empty reason: earlier messages found none."""
        if not reason:
            return
        self._reasons[address] = reason
        now = time.monotonic()
        if now - self._said.get(address, float("-inf")) >= _SAY_EVERY_S:
            self._said[address] = now
            logger.warning("no room to send to %r: %s", address, reason)

    def forget(self, address: str) -> None:
        """There was room."""
        self._reasons.pop(address, None)

    def reason(self, address: str) -> str:
        """Return why a message was refused there."""
        return self._reasons.get(address, "earlier messages wait for room")
