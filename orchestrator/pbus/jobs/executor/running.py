"""A job in a worker's hands, and what is remembered of jobs that are not there yet."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from pbus.bus.local.delivery import Delivery
from pbus.bus.local.lane_hold import InlineLaneHold
from pbus.jobs.executor.stream_pause import Outflow
from pbus.messages import BusJobCancelMessage, BusJobRequestMessage, Lane

_EARLY_CANCEL_AGE_S = 60.0  # a cancel overtakes its request by milliseconds, by a backlog at most
_MAX_EARLY_CANCELS = 10_000
_SAME_CLOCK_S = 1.0  # a deadline that is off by less was set by a clock like ours

Handler = Callable[[BusJobRequestMessage], Awaitable[Any]]
State = Literal["queued", "running", "pending"]


class Execution(msgspec.Struct, frozen=True):
    """How a request is to be carried out.

    Attributes:
        handler: Does it.
        turn_key: Jobs that share one are done one at a time; None shares with nobody.
        stays_open: It is answered later when the handler returns nothing.
    """

    handler: Handler
    turn_key: str | None = None
    stays_open: bool = False


def time_given(request: BusJobRequestMessage) -> float:
    """The seconds that a request with a deadline had when it was sent: both times are its sender's."""
    return (request.deadline or 0.0) - request.time


def _by_own_clock(request: BusJobRequestMessage, left_s: float) -> BusJobRequestMessage:
    """The request with its deadline by this process's clock, for handlers that look at it."""
    deadline = time.time() + left_s
    if abs(deadline - (request.deadline or 0.0)) < _SAME_CLOCK_S:
        return request
    return msgspec.structs.replace(request, deadline=deadline)


class RunningJob:
    """One job in hand.

    Attributes:
        order: How it is carried out.
        requester: The incarnation of whoever asked, or "" where that is not known.
        delivery: Of the stored request, to be settled at the end; None where nothing is stored.
        since: When it came, by the loop's clock.
        due: When even its requester has given it up, by the loop's clock; None means never.
        events: Updates and stream messages sent so far.
        progress: What the last update said.
        outflow: Holds its events back while its requester does not read; None: nothing does.
        turn: The handler's, once it has begun.
        has_place: It holds a place that others wait for.
        is_cancelled: Somebody else answers it.
        is_handled: The handler is over, or will never begin; a pending job is still open then.
    """

    __slots__ = (
        "delivery", "due", "events", "has_place", "is_cancelled", "is_handled", "order", "outflow",
        "progress", "request", "requester", "since", "turn",
    )  # fmt: skip

    def __init__(
        self,
        request: BusJobRequestMessage,
        order: Execution,
        *,
        since: float,
        requester: str = "",
        delivery: Delivery | None = None,
    ) -> None:
        self.order = order
        self.since = since
        self.requester = requester
        self.delivery = delivery
        # A stored request counts from its storing, by the broker's clock, others from their coming:
        # the requester's clock says nothing here.
        began = since if delivery is None else delivery.stored_at
        self.due = None if request.deadline is None else began + time_given(request)
        self.request = request if self.due is None else _by_own_clock(request, self.due - since)
        self.events = 0
        self.progress: dict[str, Any] | None = None
        self.outflow: Outflow | None = None
        self.turn: InlineLaneHold | None = None
        self.has_place = False
        self.is_cancelled = False
        self.is_handled = False

    @property
    def turn_key(self) -> str | None:
        """Jobs that share one are done one at a time."""
        return self.order.turn_key

    @property
    def is_urgent(self) -> bool:
        """Whether it goes before others."""
        return self.request.lane is Lane.SYSTEM

    @property
    def state(self) -> State:
        """Whether it waits for a place, is worked on, or is to be answered later."""
        if self.turn is None:
            return "queued"
        return "pending" if self.is_handled else "running"


class PendingCancels:
    """Cancels that came before their requests; kept for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reasons: OrderedDict[tuple[str, str], tuple[float, str | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._reasons)

    def note(self, cancel: BusJobCancelMessage) -> None:
        """Keep a cancel of a job that is not known here."""
        now = self._clock()
        while self._reasons:
            key, (since, _) = next(iter(self._reasons.items()))
            if now - since < _EARLY_CANCEL_AGE_S and len(self._reasons) < _MAX_EARLY_CANCELS:
                break
            del self._reasons[key]
        self._reasons[cancel.source, cancel.job_id] = (now, cancel.reason)

    def take(self, request: BusJobRequestMessage) -> tuple[bool, str | None]:
        """Whether a request was cancelled before it came, and why."""
        if not self._reasons:
            return False, None
        noted = self._reasons.pop((request.source, request.job_id), None)
        return (False, None) if noted is None else (True, noted[1])
