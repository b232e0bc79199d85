"""Jobs that a worker has accepted, and cancels that arrive before their requests."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from pbus.bus.local.delivery import Delivery
from pbus.bus.local.lane_hold import InlineLaneHold
from pbus.jobs.executor.send_window import SendWindow
from pbus.messages import BusJobCancelMessage, BusJobRequestMessage, Lane

_MAX_CANCEL_AGE_S = 60.0  # a cancel overtakes its request by milliseconds, by a backlog at most
_MAX_CANCELS = 10_000

Handler = Callable[[BusJobRequestMessage], Awaitable[Any]]
State = Literal["queued", "running", "pending"]


class Execution(msgspec.Struct, frozen=True):
    """The execution of a request.

    Attributes:
        handler: The coroutine function to call.
        serial_key: Jobs with the same key run one at a time; None runs beside all others.
        stays_open: Whether a handler that returns None answers later.
    """

    handler: Handler
    serial_key: str | None = None
    stays_open: bool = False


class RunningJob(msgspec.Struct, eq=False):
    """One accepted job.

    Attributes:
        since: When it was accepted, by the loop's clock.
        due: When even its requester has given it up, by the loop's clock; None for never.
        requester: The requester's incarnation; "" when it is unknown.
        delivery: The stored request, settled at the end; None for a request that is not stored.
        events: The number of updates and stream messages sent so far.
        progress: The last update.
        send_window: Delays events while the requester does not read; None before the first event.
        lane_hold: The handler's; None before it starts.
        has_slot: Whether it occupies a slot of the limiter.
        is_cancelled: Whether it is answered as cancelled, whatever its handler returns.
        is_handled: Whether the handler has ended, or will never start; a pending job is open still.
    """

    request: BusJobRequestMessage
    execution: Execution
    since: float
    due: float | None = None
    requester: str = ""
    delivery: Delivery | None = None
    events: int = 0
    progress: dict[str, Any] | None = None
    send_window: SendWindow | None = None
    lane_hold: InlineLaneHold | None = None
    has_slot: bool = False
    is_cancelled: bool = False
    is_handled: bool = False

    @property
    def serial_key(self) -> str | None:
        """Jobs with the same key run one at a time."""
        return self.execution.serial_key

    @property
    def is_urgent(self) -> bool:
        """Whether it goes before jobs that are not urgent."""
        return self.request.lane is Lane.SYSTEM

    @property
    def state(self) -> State:
        """Queued for a slot, running, or pending: its handler has ended without an answer."""
        if self.lane_hold is None:
            return "queued"
        return "pending" if self.is_handled else "running"


class PendingCancels(OrderedDict[tuple[str, str], tuple[float, str | None]]):
    """Cancels that arrived before their requests, by requester and job id; bounded.

    Args:
        clock: Seconds; only differences matter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock

    def add(self, cancel: BusJobCancelMessage) -> None:
        """Keep the cancel of a job that is unknown here."""
        now = self._clock()
        while self:
            key, (since, _) = next(iter(self.items()))
            if now - since < _MAX_CANCEL_AGE_S and len(self) < _MAX_CANCELS:
                break
            del self[key]
        self[cancel.source, cancel.job_id] = (now, cancel.reason)

    def take(self, request: BusJobRequestMessage) -> tuple[bool, str | None]:
        """Remove the cancel of a request.

        Returns:
            Whether there was one, and its reason.
        """
        found = self.pop((request.source, request.job_id), None)
        return (False, None) if found is None else (True, found[1])
