"""The end of a worker whose place others take: first senders turn to them, then it drains."""

import asyncio
import logging
import time
from typing import ClassVar, Final

from pbus.errors import PbusError
from pbus.messages import BusEndWorkerMessage, BusMessage
from pbus.workers.watching import WatchingMixin

logger = logging.getLogger(__name__)

_QUIET_S: Final = 0.5  # in which senders hear that they are to choose others


class LeavingMixin(WatchingMixin):
    """Adds the requested end of the worker."""

    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {BusEndWorkerMessage: "_receive_end"}

    def request_stop(
        self, *, drain: bool, reason: str | None = None, timeout_s: float | None = None
    ) -> None:
        """Have run() return."""
        raise NotImplementedError

    async def _receive_end(self, message: BusEndWorkerMessage) -> None:
        if not self.bus.incarnation.startswith(message.incarnation or ""):
            return
        if message.leaves:
            self._spawn_task(self._leave_on_end(message), f"{self.name} leaving")
        else:
            self.request_stop(drain=True, reason=message.reason, timeout_s=message.timeout_s)

    async def _leave_on_end(self, message: BusEndWorkerMessage) -> None:
        """Work on until senders have turned to others, then stop; in the time for running jobs."""
        given_s = message.timeout_s
        limit_s = self.worker_runner.end_timeout if given_s is None else given_s
        ends_at = None if limit_s is None else time.monotonic() + limit_s
        try:
            async with asyncio.timeout(limit_s):
                await self._turn_senders_away()
        except (PbusError, TimeoutError) as error:
            why = str(error) or "its time is up"
            logger.warning("%s leaves before all was handled: %s", self.name, why)
        left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
        self.request_stop(drain=True, reason=message.reason, timeout_s=left_s)

    async def _turn_senders_away(self) -> None:
        """Announce the end, and wait until senders have heard of it."""
        # At least once keys belong to stopping replicas, too, but not to inactive ones.
        await self.registry.set_stopping(self.name, active=False)
        await asyncio.sleep(_QUIET_S)
