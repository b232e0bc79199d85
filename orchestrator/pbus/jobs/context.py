"""The context of a worker that its job components share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from pbus.bus.base import WorkerBus
from pbus.bus.local.lane_hold import InlineLaneHold
from pbus.concurrency.flag import Flag
from pbus.messages import BusMessage
from pbus.registry import WorkerRegistry
from pbus.running_handlers import RunningHandlers


class Spawn(Protocol):
    """Starts tasks that the worker owns."""

    def __call__(self, work: Any, name: str | None = None) -> asyncio.Task[Any]:
        """Start a task."""
        ...


class WorkerContext(msgspec.Struct, frozen=True):
    """A worker's identity, bus and callbacks, from the moment it is attached to a runner.

    Attributes:
        address: The source of its messages: its name; for a child name@runner.
        send: Sends a message as it is; returns as WorkerBus.send(). Raises PbusError.
        spawn: Starts a task that ends with the worker.
        call_hook: Runs a hook and fires the event of its name. Never raises.
        waiting_handlers: Holds of handlers that run in lane tasks and wait.
        running_handlers: The worker's handlers in progress.
        joined: Set once the bus delivers to the worker; replies to earlier requests would be lost.
        stores_jobs: Whether the broker stores requests until they are answered.
        has_event_hooks: Whether the worker's class overrides a hook for updates or stream messages.
        hears_ends: Tells whether answers or the end of a job have a hook, or handlers of its event.
    """

    name: str
    address: str
    bus: WorkerBus
    registry: WorkerRegistry
    send: Callable[[BusMessage], Awaitable[bool]]
    spawn: Spawn
    call_hook: Callable[..., Awaitable[None]]
    waiting_handlers: set[InlineLaneHold]
    joined: Flag
    stores_jobs: bool
    has_event_hooks: bool = False
    hears_ends: Callable[[], bool] = lambda: False
    running_handlers: RunningHandlers = msgspec.field(default_factory=RunningHandlers)
