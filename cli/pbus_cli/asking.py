"""Asking a worker to do a job, from outside: one address for the answer, no place in the registry."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from pbus.bus.base import WorkerBus
from pbus.bus.subscriber import BusSubscriber
from pbus.errors import (
    BusError,
    JobCancelledError,
    JobFailedError,
    JobTimeoutError,
    JobWorkerLostError,
)
from pbus.ids import new_id
from pbus.jobs.backpressure import WINDOW_BYTES, Reading
from pbus.jobs.job_events import EventType
from pbus.jobs.listing import BusJobCancelRequestMessage, BusJobCancelResponseMessage
from pbus.leases import Lease
from pbus.messages import (
    BusJobCancelMessage,
    BusJobCreditMessage,
    BusJobCreditRequestMessage,
    BusJobMessage,
    BusJobRequestMessage,
    BusJobRequestUrgentMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusMessage,
    JobStatus,
)
from pbus_cli.letters import Letter, post

OnEvent = Callable[[EventType, dict[str, Any]], None]
Answer = BusJobResponseMessage | BusJobStreamEndMessage

_CAPACITY: Final = 10_000  # messages that wait to be read; the job's window is far below
_LATE_S: Final = 1.0  # without news for so long, what an urgent answer overtook is lost
_LOOK_S: Final = 1.0  # how often the worker's lease is looked at
_CANCEL_S: Final = 2.0  # for the cancel to be written while the command ends


class Asker(BusSubscriber):
    """Asks for jobs and takes the answers, under an address that only this command has."""

    def __init__(self, bus: WorkerBus, name: str) -> None:
        self.name = name
        self._bus = bus
        self._heard: asyncio.Queue[BusJobMessage] = asyncio.Queue(_CAPACITY)
        self._job_id = ""
        self._reading: Reading | None = None

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Only what is said about the open job."""
        return isinstance(message, BusJobMessage) and message.job_id == self._job_id

    async def on_bus_message(self, message: BusMessage) -> None:
        """Keep it for whoever waits; say how much of it was shown."""
        if isinstance(message, BusJobCreditRequestMessage):
            read = 0 if self._reading is None else self._reading.read
            await self._tell_read(message.source, read, is_idle=self._heard.empty())
        elif isinstance(message, BusJobMessage):
            await self._heard.put(message)

    async def ask(
        self, worker: Lease, job: str, payload: dict[str, Any], *, timeout_s: float,
        on_event: OnEvent, is_urgent: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """The response to one job; cancels the job when left before it came.

        Args:
            worker: Whom to ask.
            job: For which job.
            payload: With what.
            timeout_s: Seconds until giving up.
            on_event: Told of updates and stream messages, in order.
            is_urgent: Ask with high priority.

        Raises:
            JobTimeoutError: None came in time.
            JobFailedError: The worker answered error or failed.
            JobCancelledError: The worker cancelled it, or `pbus cancel` did.
            JobWorkerLostError: The worker died or left.
        """
        self._job_id = job_id = new_id()
        self._reading = None
        deadline = time.time() + timeout_s
        letter = job_letter(
            job_id, job, payload, deadline=deadline, is_urgent=is_urgent, window=WINDOW_BYTES
        )
        async with self._cancelled_unless_done(job_id, worker.name):
            await post(self._bus, letter, source=self.name, target=worker.name, is_urgent=False)
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await self._answer(worker, on_event)
            except TimeoutError:
                raise JobTimeoutError(job_id, worker.name, timeout_s, "no answer came") from None
        return _response(answer, worker.name)

    async def _answer(self, worker: Lease, on_event: OnEvent) -> Answer:
        seen = 0
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    message = await self._heard.get()
            except TimeoutError:
                await self._see_alive(worker)
                continue
            if isinstance(message, Answer):
                await self._see_rest(message.events - seen, on_event)
                return message
            if isinstance(message, BusJobCancelRequestMessage):
                await self._give_up(message, worker)
            seen += await self._show(message, on_event)

    async def _see_rest(self, missing: int, on_event: OnEvent) -> None:
        """Wait for what was sent before an urgent answer, which overtakes."""
        with contextlib.suppress(TimeoutError):
            while missing > 0:
                async with asyncio.timeout(_LATE_S):
                    message = await self._heard.get()
                missing -= await self._show(message, on_event)

    async def _show(self, message: BusJobMessage, on_event: OnEvent) -> int:
        """Tell of an update or a stream message; how many it was."""
        count = _tell(message, on_event)
        position = getattr(message, "position", 0)
        if position:
            reading = self._reading
            if reading is None or position <= reading.read:  # its worker's next life begins anew
                reading = Reading(message.source, message.job_id, WINDOW_BYTES, has_queue=False)
                self._reading = reading
            if reading.hear(position - reading.read, 0.0):
                await self._tell_read(message.source, position)
        return count

    async def _tell_read(self, worker: str, position: int, *, is_idle: bool = False) -> None:
        credit = BusJobCreditMessage(
            source=self.name,
            target=worker,
            job_id=self._job_id,
            position=position,
            is_idle=is_idle,
        )
        with contextlib.suppress(BusError):  # it asks again
            await self._bus.send(credit)

    async def _give_up(self, message: BusJobCancelRequestMessage, worker: Lease) -> None:
        answer = BusJobCancelResponseMessage(
            source=self.name, target=message.source, job_id=message.job_id, outcome="cancelled"
        )
        await self._bus.send(answer)
        raise JobCancelledError(message.job_id, worker.name, message.reason)

    async def _see_alive(self, worker: Lease) -> None:
        if self._bus.delivery == "at-least-once":
            return  # the request is kept: the next life does it
        try:
            leases = await self._bus.leases.leases()
        except BusError:  # the broker is away: the deadline decides
            return
        now = next((lease for lease in leases if lease.name == worker.name), None)
        if now is None or now.incarnation != worker.incarnation:
            if not self._heard.empty():  # it answered, then left
                return
            reason = "it is not registered any more" if now is None else "it was started anew"
            raise JobWorkerLostError(self._job_id, worker.name, reason)

    @contextlib.asynccontextmanager
    async def _cancelled_unless_done(self, job_id: str, worker: str) -> AsyncIterator[None]:
        try:
            yield
        except JobWorkerLostError:
            raise
        except BaseException:
            cancel = BusJobCancelMessage(
                source=self.name, target=worker, job_id=job_id, reason="the requester left"
            )
            with contextlib.suppress(BusError, TimeoutError):
                async with asyncio.timeout(_CANCEL_S):
                    await self._bus.send(cancel)
            raise


def job_letter(
    job_id: str,
    job: str,
    payload: dict[str, Any],
    *,
    deadline: float | None = None,
    is_urgent: bool = False,
    window: int | None = None,
) -> Letter:
    """The request for a job; with a window its worker waits for who reads its events."""
    fields = {
        "job_id": job_id, "job_name": job, "payload": payload, "deadline": deadline,
        "window": window,
    }  # fmt: skip
    kind = BusJobRequestUrgentMessage if is_urgent else BusJobRequestMessage
    return Letter(kind.__name__, {k: v for k, v in fields.items() if v is not None})


def _tell(message: BusJobMessage, on_event: OnEvent) -> int:
    """Tell of an update or a stream message; how many it was."""
    if isinstance(message, BusJobUpdateMessage):
        on_event("update", message.update or {})
    elif isinstance(message, BusJobStreamStartMessage):
        on_event("stream_start", message.data or {})
    elif isinstance(message, BusJobStreamDataMessage):
        on_event("stream_data", message.data or {})
    else:
        return 0
    return 1


def _response(answer: Answer, worker: str) -> dict[str, Any]:
    if isinstance(answer, BusJobStreamEndMessage):
        return answer.data or {}
    response = answer.response or {}
    if answer.status == JobStatus.COMPLETED:
        return response
    if answer.status == JobStatus.CANCELLED:
        reason = response.get("reason") or response.get("error")
        raise JobCancelledError(answer.job_id, worker, None if reason is None else str(reason))
    raise JobFailedError(answer.job_id, worker, answer.status.value, response)
