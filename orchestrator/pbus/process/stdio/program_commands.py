"""Acting on the lines of a program: messages, answers, jobs of its own."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from pbus.errors import (
    BusFullError,
    BusUnavailableError,
    JobError,
    PbusError,
    ProgramLineError,
    StdinClosedError,
)
from pbus.jobs import JobEvent, JobParams
from pbus.messages import BusOpaqueMessage, BusOpaqueSystemMessage, JobStatus
from pbus.process.stdio.handed_over import HandedOver
from pbus.process.stdio.program_lines import ProgramLine, shown
from pbus.trace_context import in_trace
from pbus.workers.base_worker import BaseWorker

logger = logging.getLogger(__name__)

_MOST_JOBS = 1_000  # of its own at once; then its stdout is not read
_RETRY_S = 0.5
_EVENT_KINDS = {"update": "update", "stream_start": "stream", "stream_data": "stream"}


class Write(Protocol):
    """Writes a line to the program."""

    async def __call__(self, kind: str, *, waits: bool = True, **fields: Any) -> int:
        """Write a line of a kind."""
        ...


class ProgramCommands:
    """Does what the lines of a program say.

    Args:
        worker: That stands for the program.
        write: Answers.
        handed_over: The messages that the program has.

    Attributes:
        is_ready: Set by its line `{"ready": true}`.
    """

    def __init__(self, worker: BaseWorker, write: Write, handed_over: HandedOver) -> None:
        self.is_ready = asyncio.Event()
        self._worker = worker
        self._write = write
        self._handed_over = handed_over
        self._streams: set[str] = set()
        self._jobs: dict[str | int, asyncio.Task[None]] = {}
        self._has_room = asyncio.Semaphore(_MOST_JOBS)
        self._actions: dict[str, Callable[[ProgramLine], Awaitable[None]]] = {
            "ready": self._on_ready,
            "done": self._on_done,
            "failed": self._on_failed,
            "message": self._send_message,
            "response": self._respond,
            "error": self._fail,
            "update": self._update,
            "stream": self._stream,
            "job": self._ask,
            "cancel": self._cancel,
            "activate": self._activate,
            "deactivate": self._deactivate,
            "end": self._end,
        }

    async def act(self, line: ProgramLine, text: bytes) -> None:
        """Do what a line says; waits while the bus has no room.

        Raises:
            ProgramLineError: It cannot be done.
        """
        action = self._actions[line.kind]
        while True:
            try:
                await action(line)
            except (BusFullError, BusUnavailableError) as error:
                logger.warning("%s; the program waits, and it is tried again", error.message)
                await asyncio.sleep(_RETRY_S)
            except PbusError as error:
                raise ProgramLineError(shown(text), error.message) from error
            else:
                return

    # About what it was given

    async def _on_ready(self, line: ProgramLine) -> None:
        self._handed_over.is_told = line.done
        self.is_ready.set()

    async def _on_done(self, line: ProgramLine) -> None:
        self._handed_over.settle(str(line.id))

    async def _on_failed(self, line: ProgramLine) -> None:
        problem = line.error or "the program could not handle it"
        self._handed_over.settle(str(line.id), PbusError(problem))
        logger.error("the message %s failed: %s", line.id, problem)

    async def _respond(self, line: ProgramLine) -> None:
        job_id = str(line.id)
        if job_id in self._streams:
            await self._worker.send_job_stream_end(job_id, line.fields())
            self._streams.discard(job_id)
        else:
            await self._worker.send_job_response(job_id, line.fields())

    async def _fail(self, line: ProgramLine) -> None:
        answer = {"error": line.error or "the program gives no reason", **line.fields()}
        await self._worker.send_job_response(str(line.id), answer, status=JobStatus.FAILED)
        self._streams.discard(str(line.id))

    async def _update(self, line: ProgramLine) -> None:
        await self._worker.send_job_update(str(line.id), line.fields())

    async def _stream(self, line: ProgramLine) -> None:
        job_id = str(line.id)
        if job_id not in self._streams:
            await self._worker.send_job_stream_start(job_id)
            self._streams = {job_id, *self._streams & self._worker.active_jobs.keys()}
        await self._worker.send_job_stream_data(job_id, line.fields())

    # Of its own

    async def _send_message(self, line: ProgramLine) -> None:
        kind = BusOpaqueSystemMessage if line.urgent else BusOpaqueMessage
        await self._worker.send_bus_message(
            kind(
                source=self._worker.address,
                target=line.target,
                key=line.key,
                traceparent=line.traceparent,
                type_name=line.type,
                data=bytes(line.data),
            )
        )

    async def _activate(self, line: ProgramLine) -> None:
        await self._worker.activate_worker(line.target or "", args=line.fields())

    async def _deactivate(self, line: ProgramLine) -> None:
        await self._worker.deactivate_worker(line.target or "")

    async def _end(self, line: ProgramLine) -> None:
        await self._worker.end(line.error or None)

    async def _ask(self, line: ProgramLine) -> None:
        if line.id in self._jobs:
            raise PbusError(f"it has a job {line.id!r} already")
        try:
            params = JobParams(
                name=line.name, payload=line.fields(), timeout=line.timeout, key=line.key
            )
        except ValueError as error:
            raise PbusError(str(error)) from error
        await self._has_room.acquire()
        with in_trace(line.traceparent):
            task = self._worker.create_task(self._do_job(line, params), f"job {line.id}")
        self._jobs[line.id] = task
        task.add_done_callback(lambda _: self._forget(line.id))

    def _forget(self, job_id: str | int) -> None:
        del self._jobs[job_id]
        self._has_room.release()

    async def _cancel(self, line: ProgramLine) -> None:
        if (task := self._jobs.get(line.id)) is not None:
            task.cancel()

    async def _do_job(self, line: ProgramLine, params: JobParams) -> None:
        """Ask for a job, and tell the program what comes of it, while it listens."""
        asking = self._worker.job(line.target or "", params=params)
        with contextlib.suppress(StdinClosedError):
            try:
                async with asking as asked:
                    async for event in asked:
                        await self._tell_event(line, event)
            except JobError as error:
                await self._write("error", id=line.id, error=error.message)
            else:
                response = asked.response
                await self._write(
                    "response", id=line.id, source=response.worker, data=dict(response)
                )

    async def _tell_event(self, line: ProgramLine, event: JobEvent) -> None:
        if event.type in _EVENT_KINDS and (event.data or event.type != "stream_start"):
            await self._write(_EVENT_KINDS[event.type], id=line.id, data=event.data)
