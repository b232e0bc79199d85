"""The link of one Pipecat process to pbus' bus: messages both ways, registration, jobs, the end."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from pbus.bus.base import new_header
from pbus.bus.brokered import BrokeredBus
from pbus.codec import decode_header, decode_message
from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.conversion import WireMessage, decode_wire, from_wire, to_wire
from pbus.compat.pipecat.flushes import DONE, Flushes
from pbus.compat.pipecat.local_addresses import Broadcasts, LocalAddress
from pbus.compat.pipecat.local_workers import ENDS, Front, LocalWorkers
from pbus.compat.pipecat.peers import PeerRegistry, Peers
from pbus.compat.pipecat.pipecat_jobs.job_book import JobBook
from pbus.compat.pipecat.pipecat_jobs.job_ledger import (
    JobLedger,
    OpenJob,
    abandoned_cancel,
    failed_answer,
)
from pbus.compat.pipecat.traces import trace_of
from pbus.concurrency.background import TaskOwner
from pbus.errors import MessageDecodeError, PbusError
from pbus.ids import new_token
from pbus.jobs.listing import BusJobCancelRequestMessage, BusJobsRequestMessage
from pbus.messages import BusCancelMessage, BusEndMessage, BusWorkerRegistryMessage
from pbus.registry import Replicas, WorkerLostData
from pbus.runner.open_jobs import reply_with_open_jobs
from pbus.runner.type_checks import BusAcceptanceRequestMessage, BusAcceptanceResponseMessage

logger = logging.getLogger(__name__)

LOSS_GRACE_S = 0.1  # an answer that was sent before the loss may arrive so much later
_ACTIVATION_S = 2.0  # for an activation to take effect before the next message comes in
_POLL_S = 0.01
_TO_PROCESSES = frozenset({
    "BusWorkerRegistryMessage",
    "BusAcceptanceRequestMessage",
    "BusJobsRequestMessage",
})
_STAYING = (
    theirs.BusLocalMessage,
    theirs.BusWorkerRegistryMessage,
    theirs.BusWorkerReadyMessage,
)
_ENDS = {theirs.BusEndMessage: BusEndMessage, theirs.BusCancelMessage: BusCancelMessage}


class PipecatLink:
    """Joins the workers of one runner to a channel.

    Args:
        bus: Not started; its own.
        runner: The runner.
        front: The side of the runner.
        session: Its end ends others of the session, and theirs this one.
        entry: The name under which a supervisor knows this process; None without one.

    Attributes:
        workers: Those of the runner.
    """

    def __init__(
        self,
        bus: BrokeredBus,
        runner: theirs.WorkerRunner,
        front: Front,
        *,
        session: str | None,
        entry: str | None,
    ) -> None:
        self.name = f"runner-{new_token(32)}"
        self.bus = bus
        self.session = session
        self.is_observer = front.is_observer
        self._runner = runner
        self._deliver = front.deliver
        self._packed = bus.encoding == "msgpack"
        self._registry = PeerRegistry(self.name, bus, session)
        self._replicas = Replicas(self._registry)
        self._ledger = JobLedger()
        self._broadcasts = Broadcasts()
        self._flushes = Flushes(self._tell_flushed)
        self._tasks = TaskOwner()
        self._unknown: set[str] = set()  # types that were complained about
        self._peers: Peers | None = None
        self.workers = LocalWorkers(
            runner, self._registry, bus, entry=entry, receive=self._receive, front=front
        )
        self._book = JobBook(runner, self.workers.address_of)
        self._hub = LocalAddress(self.name, "", self._receive, decoder=_decode_for_process)

    # Open and close

    async def open(self, timeout: float | None) -> None:  # noqa: ASYNC109 - as the bus
        """Join the channel.

        Args:
            timeout: Seconds for the broker to answer; None waits for ever.

        Raises:
            BusUnavailableError: It did not.
            DuplicateWorkerError: The name of the process is taken.
        """
        if not self.is_observer:
            self._peers = Peers(self._registry, self._runner, self._on_lost)
        await self.bus.start(timeout)
        await self.bus.subscribe(self._hub)
        await self._registry.start()
        await self.workers.open()

    async def close(self) -> None:
        """Release the names, send what is left, and leave the channel. Idempotent."""
        await self.workers.close()
        await self._tasks.close()
        if self._peers is not None:
            await self._peers.close()
        await self._registry.stop()
        await self.bus.stop()

    # Out

    async def pass_on(self, message: theirs.BusMessage) -> bool:
        """Send a message of this process to others, if it is for them.

        Returns:
            Whether it was sent.

        Raises:
            MessageEncodeError: A field cannot travel.
            BusError: As of `WorkerBus.send`.
        """
        if not isinstance(message, theirs.BusFrameMessage):  # the most are
            await self._note(message)
        if self.is_observer or not self._is_for_others(message):
            return False
        for kind, ours in _ENDS.items():
            if isinstance(message, kind):
                source = self.workers.address_of(message.source)
                end = ours(source=source, reason=message.reason, session=self.session)
                self._broadcasts.note(end.id)
                await self.bus.send(end)
                return True
        await self._send(message)
        return True

    async def _note(self, message: theirs.BusMessage) -> None:
        """Take note of what a message says of jobs and workers here."""
        self._book.note(message)
        if isinstance(message, theirs.BusWorkerReadyMessage):
            await self.workers.on_ready(message)
        elif isinstance(
            message, (theirs.BusActivateWorkerMessage, theirs.BusDeactivateWorkerMessage)
        ):
            self._spawn(self.workers.note_activation(message), "activation")

    def _is_for_others(self, message: theirs.BusMessage) -> bool:
        if message.target is not None and self.workers.is_local(message.target):
            return False
        if isinstance(message, _STAYING):
            return False
        if message.target is not None:
            return True
        return isinstance(message, tuple(_ENDS)) or bool(self._registry.remote_workers)

    async def _send(self, message: theirs.BusMessage) -> None:
        asked, address, incarnation = message.target, message.target, ""
        if asked is not None:
            job_id = getattr(message, "job_id", None)
            address = self._ledger.address_of(job_id, asked)
            if address is None:
                data = self._replicas.choose(asked)
                address = asked
                if data is not None:
                    incarnation = data.incarnation
                    address = asked if self.bus.queues is not None else data.worker_name
        source = self.workers.address_of(message.source)
        wire = to_wire(message, source, address, packed=self._packed)
        self._flushes.leaving(message)
        if asked is None:
            self._broadcasts.note(wire.id)
        else:
            self._ledger.sent(wire, message.source, asked, incarnation)
        urgent = isinstance(message, theirs.BusSystemMessage)
        await self.bus.send_checked(wire.header, wire.values, urgent=urgent)
        self.workers.sent[message.source] += 1

    def refuse(self, message: theirs.BusMessage, error: PbusError) -> None:
        """Answer a job request that could not be sent: its requester would wait."""
        if isinstance(message, theirs.BusJobRequestMessage) and message.target is not None:
            job = OpenJob(message.job_id, message.source, message.target, message.target, "")
            self._deliver(failed_answer(job, error.message, type(error).__name__))

    async def show(self, message: theirs.BusMessage) -> None:
        """Show a message that stayed in this process to those that follow the channel."""
        source = self.workers.address_of(message.source)
        await self.bus.send(trace_of(message, source))

    # In

    async def _receive(self, address: LocalAddress, message: Any) -> None:
        if isinstance(message, WireMessage):
            if not self._broadcasts.is_repeated(message):
                await self._take_in(address, message)
        elif isinstance(message, BusWorkerRegistryMessage):
            self._registry.on_announcement(message)
        elif isinstance(message, BusAcceptanceRequestMessage):
            await self._accept(message)
        elif isinstance(message, BusJobsRequestMessage):
            await reply_with_open_jobs(self.bus, self.name, [self._book], message)

    async def _accept(self, request: BusAcceptanceRequestMessage) -> None:
        """Tell a client that what it is about to send is taken: classes are looked up on arrival."""
        answer = BusAcceptanceResponseMessage(
            source=self.name, target=request.source, runner=self.name, kind=request.kind
        )
        await self.bus.send(answer)

    async def _take_in(self, address: LocalAddress, wire: WireMessage) -> None:
        if self._flushes.is_done(wire):
            return
        if wire.type_name in ENDS and await self.workers.on_end(address, wire):
            return
        if wire.type_name == BusJobCancelRequestMessage.__name__:
            await self.bus.send(await self._book.cancel(address.worker, wire, source=address.name))
            return
        message = self._read(wire) if _is_of_session(wire, self.session) else None
        if message is None:
            return
        message.source = self._ledger.received(wire, address.worker, self._incarnation_of)
        if message.target is not None:
            message.target = address.worker or message.target
        await self._hand_over(message, address, wire.source)

    async def _hand_over(self, message: Any, address: LocalAddress, peer: str) -> None:
        worker = self.workers.get(address.worker)
        problem = "is on a bus of its own" if self.is_observer else None
        if worker is not None and not worker.active:
            problem = problem or "is not active"
        if isinstance(message, theirs.BusJobRequestMessage) and problem is not None:
            await self._reject(message, peer, f"worker {address.worker!r} {problem}")
            return
        if self.is_observer:
            return
        self._flushes.coming(message)
        self._book.note(message)
        self._deliver(message)
        if isinstance(message, theirs.BusActivateWorkerMessage) and worker is not None:
            await _wait_active(worker)
            await self.workers.note_activation(message)

    def _incarnation_of(self, name: str) -> str:
        data = self._registry.get(name)
        return "" if data is None else data.incarnation

    def _read(self, wire: WireMessage) -> Any:
        """Return its message; None, and once a type a line in the log, where it cannot be taken in."""
        try:
            return from_wire(wire)
        except MessageDecodeError as error:
            level = logging.DEBUG if wire.target is None else logging.WARNING
            if error.message not in self._unknown:
                self._unknown.add(error.message)
                logger.log(level, "a message of %s is dropped: %s", wire.source, error)
            return None

    async def _reject(self, request: Any, peer: str, problem: str) -> None:
        """Answer a job that will not be done: Pipecat would not."""
        self._ledger.answered(request.job_id, peer)
        job = OpenJob(request.job_id, peer, request.target, peer, "")
        await self._send(failed_answer(job, problem, "JobRejectedError"))

    def _tell_flushed(self, origin: str, flush_id: int) -> None:
        """Tell the process of a worker that a flush which it began is done here."""
        header = new_header(DONE, self.name, origin)
        self._spawn(self.bus.send_checked(header, {"flush_id": flush_id}), "flush")

    # Losses

    def _on_lost(self, data: WorkerLostData) -> None:
        asked, doing = self._ledger.lose(data.worker_name, data.incarnation)
        for job in doing:
            self._deliver(abandoned_cancel(job, data.reason))
        if asked:
            self._spawn(self._end_lost(asked, data.reason), "loss")

    async def _end_lost(self, jobs: list[Any], reason: str) -> None:
        await asyncio.sleep(LOSS_GRACE_S)
        for job in jobs:
            if self._ledger.end(job):
                text = f"worker {job.worker!r} was lost: {reason}"
                self._deliver(failed_answer(job, text, "JobWorkerLostError"))

    def _spawn(self, work: Coroutine[Any, Any, Any], what: str) -> None:
        self._tasks.spawn(work, f"pbus {what} of {self._runner.name}")


async def _wait_active(worker: theirs.BaseWorker) -> None:
    """Hold back what comes next: Pipecat drops what reaches a worker before its activation."""
    ends = asyncio.get_running_loop().time() + _ACTIVATION_S
    while not worker.active and asyncio.get_running_loop().time() < ends:  # noqa: ASYNC110 - Pipecat has no event for it
        await asyncio.sleep(_POLL_S)


def _is_of_session(wire: WireMessage, own: str | None) -> bool:
    if wire.type_name not in {"BusEndMessage", "BusCancelMessage"}:
        return True
    session = wire.values.get("session")
    return session is None or session == own


def _decode_for_process(line: bytes) -> Any:
    """Decode what is for processes as pbus does, all else as it travels."""
    try:
        if decode_header(line).type in _TO_PROCESSES:
            return decode_message(line)
    except PbusError as error:
        logger.warning("a message is refused: %s", error)
        return None
    return decode_wire(line)
