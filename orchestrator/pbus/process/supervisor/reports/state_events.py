"""State changes of workers as messages to `STATES_ADDRESS`."""

import collections
import time
from collections.abc import Iterable

import msgspec

from pbus.leases import Lease
from pbus.messages import STATES_ADDRESS, BusWorkerStateMessage
from pbus.observe import State, is_unresponsive
from pbus.process.supervisor_events import Event, Started, StateChanged

_MAX_QUEUED = 10_000  # while the broker is away; the oldest is dropped
_MAX_DETAIL = 1024  # characters


class StateEventQueue:
    """Queues a message for each state change until it can be sent.

    Args:
        source: The supervisor's address.
        project: The name of its topology.
    """

    def __init__(self, source: str, project: str) -> None:
        self._source = source
        self._project = project
        self._last: dict[str, _LastEvent] = {}
        self._queue: collections.deque[BusWorkerStateMessage] = collections.deque(
            maxlen=_MAX_QUEUED
        )

    def on_event(self, event: Event) -> None:
        """Handle an event of the supervisor."""
        if isinstance(event, Started):
            last = self._last_of(event.worker)
            last.pid, last.incarnation = event.pid, event.incarnation
            self._add(event.worker, "starting")
        # "starting" is sent with the pid, once there is a process.
        elif isinstance(event, StateChanged) and event.state != "starting":
            self._add(event.worker, event.state, event.detail)

    def check(self, leases: Iterable[Lease]) -> None:
        """Find workers in the registry that have stopped, or resumed, their heartbeat."""
        now = time.time()
        for lease in leases:
            last = self._last.get(lease.name)
            if last is None or not lease.incarnation.startswith(last.incarnation):
                continue
            self._check_faults(last, lease)
            is_silent = is_unresponsive(lease, now)
            if is_silent and last.state == "ready":
                self._add(lease.name, "unresponsive", f"silent for {now - lease.beat:.0f} s")
            elif not is_silent and last.state == "unresponsive":
                self._add(lease.name, "ready", "answers again")

    def _check_faults(self, last: "_LastEvent", lease: Lease) -> None:
        if lease.incarnation != last.fault_incarnation:
            last.fault_incarnation, last.faults = lease.incarnation, 0
        if lease.faults > last.faults and last.state is not None:
            last.faults = lease.faults
            detail = f"a task of its bus ended by an error and goes on ({lease.faults} so far; its log has it)"
            self._add(lease.name, last.state, detail)

    def drain(self) -> list[BusWorkerStateMessage]:
        """Return the queued messages in order, once."""
        messages = list(self._queue)
        self._queue.clear()
        return messages

    def _add(self, worker: str, state: State, detail: str = "") -> None:
        last = self._last_of(worker)
        message = BusWorkerStateMessage(
            source=self._source,
            target=STATES_ADDRESS,
            project=self._project,
            worker=worker,
            state=state,
            previous=last.state,
            pid=last.pid,
            detail=detail[:_MAX_DETAIL],
        )
        last.state = state
        self._queue.append(message)

    def _last_of(self, worker: str) -> "_LastEvent":
        return self._last.setdefault(worker, _LastEvent())


class _LastEvent(msgspec.Struct):
    """The last event about a worker.

    Attributes:
        incarnation: Its process; the default is the prefix of no incarnation, they are hexadecimal.
        faults: Bus faults of `fault_incarnation` that were sent.
    """

    state: State | None = None
    pid: int | None = None
    incarnation: str = "?"
    fault_incarnation: str = ""
    faults: int = 0
