"""What the job desks use of their worker."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.local.lane_hold import InlineLaneHold
from pbus.messages import BusMessage
from pbus.registry import WorkerRegistry


class Spawn(Protocol):
    """Starts a task that the worker owns."""

    def __call__(self, work: Any, name: str | None = None) -> asyncio.Task[Any]:
        """Start it."""
        ...


class WorkerContext(msgspec.Struct, frozen=True):
    """A worker's name, address and means, from the moment a runner has it.

    Attributes:
        send: Send as it is; raises PbusError.
        call_hook: Run a hook and fire its event; never raises.
        handling: The turns of handlers that run in the lanes' own tasks, and wait.
        has_event_hooks: Whether a hook of a subclass hears each update or piece of a job.
        joined: Set once the bus delivers to the worker; what is asked before is answered to nobody.
    """

    name: str
    address: str
    bus: WorkerBus
    registry: WorkerRegistry
    send: Callable[[BusMessage], Awaitable[None]]
    spawn: Spawn
    call_hook: Callable[..., Awaitable[None]]
    handling: set[InlineLaneHold]
    joined: asyncio.Event
    has_event_hooks: bool = False

    @property
    def keeps_jobs(self) -> bool:
        """Whether the broker keeps jobs until they are answered."""
        return self.bus.delivery == "at-least-once"
