"""A worker in the place of one of a recording: answers jobs as that one did."""

import asyncio
import logging
from typing import Any

from pbus.client.recordings.job_script import JobScript, RecordedJob
from pbus.client.recordings.replay_plan import SaidMessage
from pbus.errors import PbusError
from pbus.handlers import PENDING
from pbus.messages import BusJobRequestMessage, JobStatus
from pbus.workers.base_worker import BaseWorker

logger = logging.getLogger(__name__)


class RecordedWorker(BaseWorker):
    """Answers jobs as it is recorded, after the recorded time; takes all messages and does nothing.

    Args:
        name: The worker's.
        script: Has its jobs.
        speed: Seconds of the recording a second; 0 for no pauses.
    """

    takes_opaque = True

    def __init__(self, name: str, script: JobScript, speed: float) -> None:
        super().__init__(name)
        self._script = script
        self._speed = speed

    async def on_job_request(self, message: BusJobRequestMessage) -> Any:
        """Answer as it is recorded; a job without an answer fails, and is not tried again."""
        job = self._script.take(self.name, message.source, message.job_name, message.payload)
        if job is None:
            problem = (
                f"the recording has no (further) answer of {self.name!r} to {message.job_name!r}"
            )
            logger.warning("job %s of %s fails: %s", message.job_id, message.source, problem)
            await self.send_job_response(
                message.job_id, {"error": problem}, status=JobStatus.FAILED
            )
        elif job.is_answered:
            self.create_task(self._answer(message.job_id, job), f"{self.name} answer")
        return PENDING

    async def _answer(self, job_id: str, job: RecordedJob) -> None:
        loop = asyncio.get_running_loop()
        began, asked = loop.time(), job.request.header.time
        for said in job.answers:
            if self._speed:
                due = began + (said.header.time - asked) / self._speed
                await asyncio.sleep(max(0.0, due - loop.time()))
            try:
                await self._send(job_id, said)
            except PbusError:
                return  # it was cancelled, or its requester has left

    async def _send(self, job_id: str, said: SaidMessage) -> None:
        fields = said.fields
        is_urgent = said.header.type.endswith("UrgentMessage")
        kind = said.header.type.removeprefix("BusJob").removesuffix("Message")
        match kind.removesuffix("Urgent"):
            case "Update":
                await self.send_job_update(job_id, fields.get("update"), urgent=is_urgent)
            case "StreamStart":
                await self.send_job_stream_start(job_id, fields.get("data"))
            case "StreamData":
                await self.send_job_stream_data(job_id, fields.get("data"))
            case "StreamEnd":
                await self.send_job_stream_end(job_id, fields.get("data"))
            case _:
                status = JobStatus(fields.get("status", JobStatus.COMPLETED))
                response = fields.get("response")
                await self.send_job_response(job_id, response, status=status, urgent=is_urgent)
