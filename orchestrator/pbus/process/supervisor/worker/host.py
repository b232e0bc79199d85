"""Protocol: the services that a worker process uses."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from pbus.process.supervisor.broker_watch import BrokerWatch
from pbus.process.supervisor_events import Event
from pbus.process.system.output import OnLine
from pbus.process.system.spawn import Child
from pbus.stack_values import ProcessStacks
from pbus.topology.model import WorkerInstance


class Blocker(msgspec.Struct, frozen=True):
    """A dependency that is not met.

    Attributes:
        text: Its name, and the condition or its state.
        has_failed: It will not be met without a command of the user's.
    """

    text: str
    has_failed: bool = False


class ProcessHost(Protocol):
    """Starts processes and passes their ends on to the bus.

    Attributes:
        broker: Availability of the broker.
    """

    broker: BrokerWatch

    async def start_child(
        self,
        instance: WorkerInstance,
        incarnation: str,
        on_line: OnLine,
        on_exit: Callable[[], None],
        env: Mapping[str, str],
    ) -> Child:
        """Start a process of the worker; `env` is added to its environment.

        Raises:
            OSError: It cannot be started.
            ValueError: Its command or environment cannot be passed to a process.
        """
        ...

    async def release_incarnation(self, child: Child, reason: str) -> str:
        """Release what an ended process held on the bus. Never raises, returns within seconds.

        Returns:
            The fate of the messages it held, as text; "" where it held none.
        """
        ...

    def forget_group(self, child: Child) -> None:
        """Tell the guard that the child's process group is empty."""
        ...

    def explain_exit(self, child: Child, code: int) -> str:
        """Return the likely cause of an exit code, or ""."""
        ...

    async def read_stacks(self, child: Child) -> ProcessStacks | str:
        """Return the stacks of a process that hangs, or why there are none; within a second or two."""
        ...

    async def request_end(self, worker: str, timeout_s: float | None) -> bool:
        """Ask a worker by message to finish its queued messages and jobs.

        Args:
            worker: Its name.
            timeout_s: Seconds for running jobs; None for the default.

        Returns:
            Whether the message was sent.
        """
        ...

    def socket_dir(self) -> Path:
        """Return an existing folder for sockets, private and with a short path.

        Raises:
            OSError: It cannot be made.
        """
        ...

    def emit(self, event: Event) -> None:
        """Pass an event to the listeners."""
        ...
