"""Launches worker processes, and connects them to the guard and the bus."""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pbus.errors import ProcessError, StacksUnavailableError
from pbus.process.forking.fork_messages import zygote_spec
from pbus.process.forking.warm_starts import WarmStarts
from pbus.process.launch_errors import explain, hint_at_exit
from pbus.process.project.project import Project
from pbus.process.services.guard_client import GuardClient
from pbus.process.supervisor.bus_client import SupervisorBusClient
from pbus.process.supervisor_events import Event, Line
from pbus.process.system.launch_plan import ProcessEnvironment, plan_launch, zygote_env
from pbus.process.system.output import OnLine
from pbus.process.system.spawn import Child, spawn
from pbus.process.system.stack_request import first_answer
from pbus.stack_values import ProcessStacks
from pbus.topology.model import WorkerInstance

_THREADS_S = 1.0  # of a process that is about to be killed
_TASKS_S = 0.5
_STACKS_S = 2.0


class ProcessLauncher:
    """The `ProcessHost` of a project's worker processes."""

    def __init__(
        self,
        project: Project,
        environment: ProcessEnvironment,
        guard: GuardClient,
        bus_client: SupervisorBusClient,
        emit: Callable[[Event], None],
    ) -> None:
        self.emit = emit
        self.broker = bus_client.broker
        self._project = project
        self._environment = environment
        self._guard = guard
        self._bus_client = bus_client
        self._launching = asyncio.Lock()  # one at a time: each sees how many files are left
        self._warm = WarmStarts(
            zygote_spec(environment),
            zygote_env(environment, os.environ),
            project.service_log_path("zygote"),
        )

    async def close(self) -> None:
        """End the zygote. Idempotent."""
        await self._warm.close()

    async def start_child(
        self,
        instance: WorkerInstance,
        incarnation: str,
        on_line: OnLine,
        on_exit: Callable[[], None],
        env: Mapping[str, str],
    ) -> Child:
        """Start a process of a worker; `env` is added to its environment.

        Raises:
            OSError: It cannot be started; the text says why, and what to do.
            ValueError: Its command or environment cannot be passed to a process.
        """
        self._bus_client.note_started(incarnation)
        launch = plan_launch(instance, self._environment, incarnation, os.environ, env)
        start = await self._warm.starter(
            launch, lambda text: self.emit(Line(instance.name, "pbus", text, time.time()))
        )
        try:
            async with self._launching:
                child = await spawn(launch, incarnation, on_line, on_exit, start)
        except OSError as error:
            raise explain(launch, error) from error
        try:
            self._guard.add_group(child.pid)
        except BaseException:
            await child.abandon()
            raise
        return child

    async def release_incarnation(self, child: Child, reason: str) -> str:
        """Release what an ended process held; returns the fate of its messages as text."""
        return await self._bus_client.release_incarnation(
            child.incarnation, reason, has_ended_well=child.code == 0
        )

    def forget_group(self, child: Child) -> None:
        """Tell the guard that a child's process group is empty."""
        self._guard.remove_group(child.pid)

    def explain_exit(self, child: Child, code: int) -> str:
        """Return the likely cause of an exit code, or ""."""
        return hint_at_exit(child.launch, code)

    async def read_stacks(self, child: Child) -> ProcessStacks | str:
        """Return the stacks of a process that hangs, or why there are none."""
        try:
            async with asyncio.timeout(_STACKS_S):
                return await asyncio.to_thread(
                    first_answer, [child.pid], threads_s=_THREADS_S, tasks_s=_TASKS_S
                )
        except TimeoutError:
            return f"no answer within {_STACKS_S:g} s"
        except StacksUnavailableError as error:
            return error.message
        except OSError as error:
            return str(error)

    async def request_end(self, worker: str, timeout_s: float | None) -> bool:
        """Ask a worker by message to finish its queued messages and jobs."""
        return await self._bus_client.request_end(worker, timeout_s)

    def socket_dir(self) -> Path:
        """Return an existing folder for sockets, private and with a short path.

        Raises:
            OSError: It cannot be made.
        """
        try:
            self._project.make_runtime_dir()
        except ProcessError as error:
            raise OSError(errno.EAGAIN, str(error)) from error
        return self._project.runtime_dir
