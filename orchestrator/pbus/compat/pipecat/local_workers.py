"""The workers of this process: registered on pbus' bus, reachable there, and ended in order."""

import asyncio
import functools
import logging
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from pbus.bus.brokered import BrokeredBus
from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.conversion import WireMessage
from pbus.compat.pipecat.local_addresses import LocalAddress, Receive
from pbus.compat.pipecat.peers import PeerRegistry
from pbus.concurrency.background import TaskOwner
from pbus.errors import PbusError
from pbus.leases import ChildState
from pbus.names import is_worker_name
from pbus.registry.own_leases import WorkerFigures

logger = logging.getLogger(__name__)

_UNNAMED = re.compile(r"\w+#\d+")  # as Pipecat calls what its program did not name
_FLUSH_S = 2.0
ENDS = frozenset({"BusEndWorkerMessage", "BusCancelWorkerMessage"})


class Front(Protocol):
    """The side of a runner.

    Attributes:
        is_observer: The runner has a bus of its own to other processes: nothing passes here.
    """

    is_observer: bool

    def deliver(self, message: theirs.BusMessage) -> None:
        """Hand a message of another process to the workers of the runner."""
        ...

    async def flush(self) -> None:
        """Return when all that was sent before was given to `pass_on`."""
        ...

    async def end_others(self, reason: str | None) -> None:
        """End the other runners of this process, which the supervisor knows as one with this one."""
        ...


class LocalWorkers:
    """Registers the root workers of a runner by their names; children and unnamed ones have addresses.

    Args:
        runner: Hosts them.
        registry: pbus' registry.
        bus: Where they are reached.
        entry: The name under which a supervisor knows the process; it is registered, too.
        receive: Takes in messages.
        front: The side of the runner.

    Attributes:
        sent: The number of messages that left, by the worker's own name.
    """

    def __init__(
        self,
        runner: theirs.WorkerRunner,
        registry: PeerRegistry,
        bus: BrokeredBus,
        *,
        entry: str | None,
        receive: Receive,
        front: Front,
    ) -> None:
        self._runner = runner
        self._registry = registry
        self._bus = bus
        self._home = registry.runner_name  # the address of the process
        self._entry = entry
        self._receive = receive
        self._front = front
        self.sent: Counter[str] = Counter()
        self._addresses: dict[str, LocalAddress] = {}  # by the worker's own name
        self._ready: set[str] = set()
        self._process: LocalAddress | None = None  # while no worker has the entry's name
        self._is_started = False
        self._ending: asyncio.Task[None] | None = None
        self._tasks = TaskOwner()
        runner.add_event_handler("on_ready", self._on_started)

    async def open(self) -> None:
        """Register the process where none of its workers has its name."""
        if self._entry is not None and self._runner.get_worker(self._entry) is None:
            self._process = self._make_address(self._entry, "")
            lease = self._registry.new_lease(self._entry)
            await self._registry.register(lease, functools.partial(self._figures, self._entry))
            await self._bus.subscribe(self._process)
        for name in theirs.started_names(self._runner):  # before the broker was reached
            await self._join(name)
        await self._note_ready()

    async def close(self) -> None:
        """Release all names."""
        await self._tasks.close()
        for worker in list(self._addresses):
            await self._leave(worker, "its runner has ended")
        if self._process is not None:
            await self._registry.unregister(self._process.name, "its runner has ended")
            self._process = None

    # Names

    def get(self, name: str) -> theirs.BaseWorker | None:
        """The worker of a name in this process."""
        return self._runner.get_worker(name) if name else None

    def is_local(self, name: str) -> bool:
        """Whether a name is that of a worker, or the runner, of this process."""
        return name == self._runner.name or self._runner.get_worker(name) is not None

    def address_of(self, name: str) -> str:
        """The address at which others reach a sender of this process."""
        if name == self._runner.name:
            return self._home
        address = self._addresses.get(name)
        if address is not None:
            return address.name
        return self._inner_address(name)

    def _inner_address(self, name: str) -> str:
        return f"{name}@{self._home}"

    def _make_address(self, address: str, worker: str) -> LocalAddress:
        return LocalAddress(address, worker, self._receive, is_durable=True)

    # Coming and going

    async def on_ready(self, message: theirs.BusWorkerReadyMessage) -> None:
        """Register a worker that says that it is ready."""
        if message.runner == self._runner.name:
            await self._join(message.source)

    async def _join(self, name: str) -> None:
        worker = self._runner.get_worker(name)
        if worker is None or name in self._addresses:
            return
        try:
            if worker.parent is None and not _UNNAMED.fullmatch(name):
                await self._register(name, worker)
            else:
                self._addresses[name] = self._make_address(self._inner_address(name), name)
                await self._bus.subscribe(self._addresses[name])
        except PbusError as error:
            self._addresses.pop(name, None)
            logger.error("worker %s is not registered: %s", name, error)  # noqa: TRY400 - it says all
            return
        self._ready.add(name)
        self._tasks.spawn(self._follow(worker), f"pbus end of {name}")
        await self._note_ready()

    async def _register(self, name: str, worker: theirs.BaseWorker) -> None:
        if self._process is not None and self._process.name == name:  # added after the start
            self._process.worker = name
            self._addresses[name], self._process = self._process, None
        else:
            lease = self._registry.new_lease(name, active=worker.active)
            await self._registry.register(lease, functools.partial(self._figures, name))
            self._addresses[name] = self._make_address(name, name)
            await self._bus.subscribe(self._addresses[name])
        await self._registry.set_ready(name)

    def _figures(self, name: str) -> WorkerFigures:
        """The figures of a worker, or of the process, whose row has the unnamed ones."""
        worker = self.get(name)
        if worker is None:
            roots = filter(None, map(self._runner.get_worker, theirs.root_names(self._runner)))
            unnamed = [root for root in roots if _UNNAMED.fullmatch(root.name)]
            return WorkerFigures(children=self._states_of(unnamed))
        return WorkerFigures(
            sent=self.sent[name],
            working=len(worker.active_jobs),
            children=self._states_of(worker.children),
        )

    def _states_of(self, workers: Iterable[theirs.BaseWorker], depth: int = 1) -> list[ChildState]:
        """The state of workers without a lease that are ready, each before its children."""
        found = []
        for worker in workers:
            address = self._addresses.get(worker.name)
            if address is None or not is_worker_name(worker.name):  # such a lease is not read
                continue
            own = ChildState(
                name=worker.name,
                depth=depth,
                active=worker.active,
                started_at=worker.started_at or 0.0,
                received=self._bus.stats(address.name).received,
                sent=self.sent[worker.name],
                working=len(worker.active_jobs),
            )
            found += [own, *self._states_of(worker.children, depth + 1)]
        return found

    async def _on_started(self, _runner: Any) -> None:
        self._is_started = True
        await self._note_ready()

    async def _note_ready(self) -> None:
        """Report the process as ready once all its root workers are."""
        if self._process is None or not self._is_started:
            return
        if all(name in self._ready for name in theirs.root_names(self._runner)):
            await self._registry.set_ready(self._process.name)

    async def note_activation(self, message: Any) -> None:
        """Show whether a worker is active."""
        worker = self.get(message.target or "")
        if worker is not None and message.target in self._addresses and worker.parent is None:
            active = isinstance(message, theirs.BusActivateWorkerMessage)
            await self._registry.set_active(message.target, active=active)

    async def _follow(self, worker: theirs.BaseWorker) -> None:
        await worker.wait()
        await self._leave(worker.name, "it has ended")

    async def _leave(self, name: str, reason: str) -> None:
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._front.flush()  # its last answers come before its end
        except TimeoutError:
            logger.warning("what worker %s sent last is not passed on", name)
        address = self._addresses.pop(name, None)
        if address is None:
            return
        self._ready.discard(name)
        try:
            if address.name == name:
                await self._registry.unregister(name, reason)
            await self._bus.unsubscribe(address)
        except PbusError as error:
            logger.warning("worker %s is not released: %s", name, error)

    # The end

    async def on_end(self, address: LocalAddress, wire: WireMessage) -> bool:
        """Handle a request to end the process; returns whether it is one."""
        kind = wire.type_name
        if kind not in ENDS:
            return False
        incarnation = wire.values.get("incarnation")
        if incarnation is not None and not self._bus.incarnation.startswith(incarnation):
            return True  # for an earlier process
        if self._entry is None or address.name != self._entry:
            return False
        reason = wire.values.get("reason")
        if kind == "BusCancelWorkerMessage":
            await self._runner.cancel(reason)
        elif self._ending is None:
            self._ending = asyncio.create_task(self._end(reason), name="pbus end of the process")
        return True

    async def _end(self, reason: str | None) -> None:
        await asyncio.gather(self.end(reason), self._front.end_others(reason))

    async def end(self, reason: str | None) -> None:
        """Have each root worker finish what is queued, then end the runner.

        `runner.end()` alone cancels behind its own request: on a bus within the process nothing is
        finished then.
        """
        workers = [self._runner.get_worker(name) for name in theirs.root_names(self._runner)]
        for worker in filter(None, workers):
            await self._runner.bus.send(
                theirs.BusEndWorkerMessage(
                    source=self._runner.name, target=worker.name, reason=reason
                )
            )
        await theirs.until_workers_ended(self._runner)
        await self._runner.end(reason)  # it may run on without workers
