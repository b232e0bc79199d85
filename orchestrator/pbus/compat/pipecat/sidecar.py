"""The sidecar in a Pipecat program: it watches the runner's bus, and links it to pbus'."""

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Any

from pbus.bus.brokered import BrokeredBus
from pbus.bus.connect import make_bus
from pbus.bus.otel import trace_if_configured
from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.link import PipecatLink
from pbus.compat.pipecat.pbus_bus import PbusBus
from pbus.concurrency.background import TaskOwner
from pbus.errors import BusUnavailableError, MessageEncodeError, PbusError
from pbus.settings import BusSettings

logger = logging.getLogger(__name__)

_START_S = 5.0
_AGAIN_S = 1.0
_taken: set[str] = set()  # names of the process that one of its runners has
_all: "list[Sidecar]" = []  # of the runners of this process


@dataclass(kw_only=True)
class FlushMessage(theirs.BusMessage, theirs.BusLocalMessage):
    """Tells the sidecar that it has seen what came before; of no interest to workers."""

    seen: Any = None


class Sidecar(theirs.BusSubscriber):
    """Listens to the bus of a runner and passes on what is for others.

    Args:
        runner: The runner.
    """

    def __init__(self, runner: theirs.WorkerRunner) -> None:
        self._runner = runner
        self._injected: dict[int, Any] = {}  # messages of others, until they are seen here
        self._is_up = False
        self._tasks = TaskOwner()
        entry = os.environ.get("PBUS_WORKER") or None
        self._entry = None if entry is None or entry in _taken else entry
        self.is_observer = not theirs.is_in_process(runner.bus)
        bus = make_bus(BusSettings.from_env(os.environ))
        trace_if_configured(bus, os.environ)
        assert isinstance(bus, BrokeredBus)  # noqa: S101 - a supervisor has one for its programs
        self._link = PipecatLink(
            bus,
            runner,
            self,
            session=os.environ.get("PBUS_SESSION") or None,
            entry=self._entry,
        )

    @property
    def name(self) -> str:
        """Its name as a subscriber."""
        return "pbus"

    async def start(self) -> None:
        """Listen, and join the channel; when the broker does not answer, later."""
        await self._runner.bus.subscribe(self)
        theirs.when_stopped(self._runner.bus, self.stop)
        _all.append(self)
        if self._entry is not None:
            _taken.add(self._entry)
        try:
            await self._link.open(_START_S)
            self._is_up = True
        except BusUnavailableError as error:
            logger.warning("pbus is not reached, and tried again: %s", error)
            self._tasks.spawn(self._open_later(), "pbus sidecar")

    async def stop(self) -> None:
        """Leave the channel."""
        _all.remove(self)
        if self._entry is not None:
            _taken.discard(self._entry)
        await self._tasks.close()
        await self._link.close()

    async def _open_later(self) -> None:
        await asyncio.sleep(_AGAIN_S)
        await self._link.open(None)
        self._is_up = True

    # Messages

    def deliver(self, message: theirs.BusMessage) -> None:
        """Hand a message of another process to the workers here; it does not come back."""
        self._injected[id(message)] = message
        self._runner.bus.on_message_received(message)

    async def flush(self) -> None:
        """Return when all that was sent before has been passed on."""
        seen = asyncio.get_running_loop().create_future()
        await self._runner.bus.send(FlushMessage(source=self.name, target=self.name, seen=seen))
        await seen

    async def end_others(self, reason: str | None) -> None:
        """End the other runners of this process."""
        await asyncio.gather(*(one.end(reason) for one in _all if one is not self))

    async def end(self, reason: str | None) -> None:
        """Have the workers of the runner finish what is queued, and end it."""
        await self._link.workers.end(reason)

    def accepts_bus_message(self, message: theirs.BusMessage) -> bool:
        """Whether a message comes from this process."""
        if message.source == self._runner.name:
            return True
        return self._injected.pop(id(message), None) is None

    async def on_bus_message(self, message: theirs.BusMessage) -> None:
        """Pass a message of this process on, or show it to followers."""
        if isinstance(message, FlushMessage):
            message.seen.done() or message.seen.set_result(None)
            return
        if not self._is_up:
            return
        try:
            if not await self._link.pass_on(message) and self._is_from_here(message):
                await self._link.show(message)
        except MessageEncodeError as error:
            logger.error("%s of %s is not sent: %s", type(message).__name__, message.source, error)  # noqa: TRY400 - it says all
            self._link.refuse(message, error)
        except PbusError as error:
            logger.warning(
                "%s of %s is not sent: %s", type(message).__name__, message.source, error
            )

    def _is_from_here(self, message: theirs.BusMessage) -> bool:
        """Whether a worker here sent it; on a bus of its own the runner hears those of others, too."""
        name = message.source
        return name == self._runner.name or self._runner.get_worker(name) is not None


async def setup_worker_runner(runner: theirs.WorkerRunner) -> None:
    """Link a runner to the project whose `pbus up` started this program; nothing without one."""
    if not os.environ.get("PBUS_URL") or isinstance(runner.bus, PbusBus):
        return
    problem = theirs.version_problem()
    if problem is not None:
        logger.warning("pbus stays out: %s", problem)
        return
    try:
        await Sidecar(runner).start()
    except PbusError as error:
        logger.error("pbus stays out: %s", error)  # noqa: TRY400 - it says all


async def setup_pipeline_worker(_worker: Any) -> None:
    """Do nothing: workers are found by what their runner's bus says."""
