"""Where the workers of a running project live: what their actors need of it."""

import asyncio
import os
from collections.abc import Callable

from pbus.process.services.guard_client import GuardClient
from pbus.process.supervisor.bus_client import SupervisorBusClient
from pbus.process.supervisor.launch_errors import explain, hint_at_exit
from pbus.process.supervisor_events import Event
from pbus.process.system.spawn import Child, OnLine, ProcessEnvironment, plan_launch, spawn
from pbus.topology.model import WorkerInstance


class ProcessLauncher:
    """Spawns under the eyes of the guard, and passes on to the bus; see `worker_process.ProcessHost`."""

    def __init__(
        self,
        around: ProcessEnvironment,
        guard: GuardClient,
        link: SupervisorBusClient,
        tell: Callable[[Event], None],
    ) -> None:
        self._around = around
        self._guard = guard
        self._link = link
        self._tell = tell
        self._starting = asyncio.Lock()  # one at a time: each sees how many files are left

    async def start_child(
        self,
        instance: WorkerInstance,
        incarnation: str,
        on_line: OnLine,
        on_exit: Callable[[], None],
    ) -> Child:
        """Start one life of a worker.

        Raises:
            OSError: It cannot be started; the text says why, and what to do.
            ValueError: Its command or environment holds what cannot be passed on.
        """
        self._link.begin(incarnation)
        launch = plan_launch(instance, self._around, incarnation, os.environ)
        try:
            async with self._starting:
                child = await spawn(launch, incarnation, on_line, on_exit)
        except OSError as error:
            raise explain(launch, error) from error
        try:
            self._guard.add_group(child.pid)
        except BaseException:
            await child.abandon()
            raise
        return child

    async def bury(self, child: Child, reason: str) -> str:
        """Tell the bus that a life is over; what became of its messages, in words."""
        return await self._link.bury(child.incarnation, reason, ended_well=child.code == 0)

    def forget_group(self, child: Child) -> None:
        """A child's group is empty."""
        self._guard.remove_group(child.pid)

    def explain_exit(self, child: Child, code: int) -> str:
        """What is known to be behind an exit code."""
        return hint_at_exit(child.launch, code)

    async def ask_to_end(self, worker: str, timeout_s: float | None) -> bool:
        """Ask a worker by message to finish what is queued."""
        return await self._link.ask_to_end(worker, timeout_s)

    @property
    def is_broker_away(self) -> bool:
        """Whether the broker cannot be used now."""
        return self._link.is_broker_away

    @property
    def was_broker_away(self) -> bool:
        """Whether it is away, or was until a moment ago."""
        return self._link.was_broker_away

    def emit(self, event: Event) -> None:
        """Tell the listeners."""
        self._tell(event)
