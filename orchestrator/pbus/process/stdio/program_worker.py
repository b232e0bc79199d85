"""The worker that stands on the bus for a program: `stdio: jsonl` in a topology."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from pbus.bus.local.delivery import current_delivery
from pbus.errors import PbusError, ProgramLineError, StdinClosedError
from pbus.handlers import PENDING
from pbus.messages import (
    BusFrameMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    BusMessagesLostMessage,
    BusWorkerErrorMessage,
)
from pbus.process.stdio.handed_over import HandedOver
from pbus.process.stdio.program import Program, check_program
from pbus.process.stdio.program_commands import ProgramCommands
from pbus.process.stdio.program_lines import event_line, message_line, parse_line
from pbus.trace_context import traceparent_after
from pbus.workers.base_worker import BaseWorker

logger = logging.getLogger(__name__)

DEFAULT_GRACE_S = 5.0
_MOST_GRACE_S = 8.0  # what stop() of a worker may take, with the signals
_HEADER_BYTES = 64 * 1024  # of a line, beside what the bus carries in a message
_ENDING_S = 1.0  # for a program that has closed its stdin to end
_FLUSH_S = 2.0
_SIGNAL_S = 0.3  # for a signal to the process group to be handled here, too
_LOOK_S = 0.01
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_OWN = "pbus."
_FORWARDED = (BusFrameMessage, BusMessagesLostMessage, BusWorkerErrorMessage)


class ProgramWorker(BaseWorker):
    """Runs a program and passes lines between it and the bus.

    When the program ends, so does this process, with the same exit code: it is restarted as any other.

    Args:
        name: The worker's.
        command: The program and its arguments.
        waits_ready: Whether it is ready with the program's line `{"ready": true}`; else when it runs.
        grace_s: Seconds for the program to end after its stdin was closed.
        stop_signal: Sent after that.

    Raises:
        ProgramStartError: There is no such program.
    """

    takes_opaque = True

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str],
        waits_ready: bool = False,
        grace_s: float | None = None,
        stop_signal: str = "SIGTERM",
    ) -> None:
        super().__init__(name)
        check_program(command)
        self._command = tuple(command)
        self._waits_ready = waits_ready
        self._grace_s = min(DEFAULT_GRACE_S if grace_s is None else grace_s, _MOST_GRACE_S)
        self._stop_signal = signal.Signals[stop_signal]
        self._program: Program | None = None
        self._handed_over: HandedOver | None = None
        self._commands: ProgramCommands | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_ending = False

    # The program

    async def start(self) -> None:
        """Start the program."""
        self._program = Program(self._command, self.bus.max_message_bytes + _HEADER_BYTES)
        await self._program.start()
        self._handed_over = HandedOver(self._program)
        self._commands = ProgramCommands(self, self._write, self._handed_over)
        self._reading = self.create_task(self._read(self._program, self._commands), "stdout")
        self.create_task(self._handed_over.run(), "handed over")
        self.create_task(self._watch(self._program, self._reading), "program")
        if self._waits_ready:
            await self._commands.is_ready.wait()

    async def stop(self) -> None:
        """End the program: `end`, then the end of its stdin, then signals."""
        program, self._is_ending = self._program, True
        if program is None:
            return
        with contextlib.suppress(StdinClosedError):
            await program.write(event_line("end"), waits=False)
        await program.end(self._grace_s, self._stop_signal)
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=_FLUSH_S)
        if self._handed_over is not None:
            if program.code == 0:
                self._handed_over.settle_all()
            self._handed_over.requeue_all()

    async def _watch(self, program: Program, reading: "asyncio.Task[None]") -> None:
        """End with the program, when it ends by itself."""
        code = await program.wait()
        if self._is_ending:
            return
        await asyncio.wait(
            {reading}, timeout=_FLUSH_S
        )  # it may have left a process with its stdout
        if await self._is_stopped_with(code):
            self.request_stop(drain=False)
            return
        if code != 0:
            logger.error("the program %r ended %s", self._command[0], _how(code))
            await self._end_like(code)
        logger.info("the program %r has ended", self._command[0])
        self._is_ending = True
        if self._handed_over is not None:
            self._handed_over.settle_all()
        # Its open jobs cannot be finished, nor can what waits be handled: it is for others.
        await self.worker_runner.cancel(f"the program {self._command[0]!r} has ended")

    async def _is_stopped_with(self, code: int) -> bool:
        """Whether the program was ended by a signal that this process has got, too."""
        if -code in _STOP_SIGNALS or code - 128 in _STOP_SIGNALS:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SIGNAL_S):
                    while not self._is_stopping:  # noqa: ASYNC110 - set by the runner
                        await asyncio.sleep(_LOOK_S)
        return self._is_stopping

    async def _end_like(self, code: int) -> NoReturn:
        """End this process as the program has ended: what it had in hand is requeued by others."""
        with contextlib.suppress(PbusError, TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self.bus.stop()
        sys.stderr.flush()
        if code < 0:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
            code = 128 - code
        os._exit(code)

    async def _read(self, program: Program, commands: ProgramCommands) -> None:
        """Act on each line of the program; it waits for this."""
        async for line in program.lines():
            try:
                if isinstance(line, int):
                    self._refuse_long(line)
                else:
                    await commands.act(parse_line(line), line)
            except PbusError as error:
                logger.error("%s", error)  # noqa: TRY400 - the program's, not ours
            except Exception:
                logger.exception("a line of the program was not acted on")

    def _refuse_long(self, size: int) -> None:
        most = self.bus.max_message_bytes + _HEADER_BYTES
        problem = f"it has {size:,} bytes, and a line may have {most:,}"
        logger.error("%s", ProgramLineError("(dropped)", problem))

    async def _write(self, kind: str, *, waits: bool = True, **fields: Any) -> int:
        """Write a line to the program."""
        return await self._write_line(event_line(kind, **fields), waits=waits)

    async def _write_line(self, line: bytes, *, waits: bool = True) -> int:
        if self._program is None:
            raise StdinClosedError(self._command[0])
        return await self._program.write(line, waits=waits)

    # From the bus

    async def on_bus_message(self, message: BusMessage) -> None:
        """Pass a message on; it is handled when the program has it."""
        kind = type(message)
        if kind.__module__.startswith(_OWN) and not (
            message.is_opaque or isinstance(message, _FORWARDED)
        ):
            return
        delivery = current_delivery()
        try:
            position = await self._write_line(message_line(message))
        except StdinClosedError:
            if self._program is not None and await self._program.has_ended(_ENDING_S):
                if delivery is not None:
                    delivery.defer_ack()
                    delivery.requeue()
                return
            raise
        if delivery is not None and self._handed_over is not None:
            self._handed_over.add(message.id, delivery, position)

    async def on_job_request(self, message: BusJobRequestMessage) -> Any:
        """Pass a job on; the program answers it by its id."""
        timeout = None if message.deadline is None else message.deadline - message.time
        key: dict[str, Any] = {} if message.key is None else {"key": message.key}
        await self._write(
            "job",
            id=message.job_id,
            name=message.job_name,
            source=message.source,
            timeout=timeout,
            **key,
            traceparent=traceparent_after(message),
            data=message.payload or {},
        )
        return PENDING

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        """Tell that no answer is wanted any more."""
        await self._tell("cancel", id=message.job_id, reason=message.reason)

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        """Ask for the progress of a job."""
        await self._tell("update_request", id=message.job_id)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        """Tell of the activation."""
        await self._tell("activate", data=args or {})

    async def on_deactivated(self) -> None:
        """Tell of the deactivation."""
        await self._tell("deactivate")

    async def _tell(self, kind: str, **fields: Any) -> None:
        """Write a short line without waiting for the program to read."""
        with contextlib.suppress(StdinClosedError):
            await self._write(kind, waits=False, **fields)


def _how(code: int) -> str:
    if code > 0:
        return f"with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"
