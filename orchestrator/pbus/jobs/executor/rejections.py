"""Answers to requests that a worker does not accept."""

import asyncio
import logging
from typing import Any

from pbus.bus.local.delivery import current_delivery
from pbus.errors import PbusError
from pbus.jobs.context import WorkerContext
from pbus.jobs.executor.responder import answer_head
from pbus.messages import BusJobMessage, BusJobRequestMessage, BusJobResponseMessage, JobStatus

logger = logging.getLogger(__name__)

MAX_REJECTIONS = 1_000  # being sent at once; then the requesters' lane waits


class Rejections:
    """Answers to requests that are not accepted.

    Args:
        context: The worker's.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._sending: set[asyncio.Task[None]] = set()

    async def reject(self, request: BusJobRequestMessage, status: JobStatus, data: Any) -> None:
        """Answer a request that is not accepted; waits only while very many are being sent.

        Raises:
            PbusError: The answer to a stored request cannot be sent; it is delivered again.
        """
        head = answer_head(request, self._context)
        answer = BusJobResponseMessage(**head, status=status, response=data)
        if current_delivery() is not None:
            await self._context.send(answer)
            return
        sending = self._context.spawn(self._send_best_effort(answer))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        if len(self._sending) > MAX_REJECTIONS:
            await asyncio.wait({sending})

    async def flush(self, timeout_s: float) -> None:
        """Wait until all rejections are sent, at most so many seconds."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=timeout_s)

    async def _send_best_effort(self, answer: BusJobMessage) -> None:
        try:
            await self._context.send(answer)
        except PbusError as error:
            logger.warning("%s could not send %s: %s", self._context.name, answer, error)
