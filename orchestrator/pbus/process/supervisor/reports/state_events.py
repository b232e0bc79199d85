"""State changes of workers as messages to `STATES_ADDRESS`."""

import collections
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from pbus.leases import Lease
from pbus.messages import STATES_ADDRESS, BusWorkerStateMessage
from pbus.observe import State, join_reason
from pbus.process.supervisor.reports.hang_watch import Hang, HangWatch
from pbus.process.supervisor_events import Event, Started, StateChanged

_MAX_QUEUED = 10_000  # while the broker is away; the oldest is dropped
_MAX_DETAIL = 1024  # characters
_WATCHED: frozenset[State] = frozenset({"ready", "unhealthy", "unresponsive"})
_ENDED: frozenset[State] = frozenset({"backoff", "exited", "failed"})


class Named(Protocol):
    """A process, as far as it counts here."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its workers."""
        ...


class StateEventQueue:
    """Queues a message for each state change until it can be sent.

    Args:
        source: The supervisor's address.
        project: The name of its topology.
        find: Returns the process of a worker, which has the names of all workers in it.
        keep: Called with each message as it is made.
    """

    def __init__(
        self,
        source: str,
        project: str,
        find: Callable[[str], Named | None] = lambda _name: None,
        keep: Callable[[BusWorkerStateMessage], object] = lambda _message: None,
    ) -> None:
        self._find = find
        self._keep = keep
        self._source = source
        self._project = project
        self._last: dict[str, _LastEvent] = {}
        self._queue: collections.deque[BusWorkerStateMessage] = collections.deque(
            maxlen=_MAX_QUEUED
        )

    def on_event(self, event: Event) -> None:
        """Handle an event of the supervisor, for each worker of the process."""
        if isinstance(event, Started | StateChanged):
            process = self._find(event.worker)
            for name in (event.worker,) if process is None else process.names:
                self._on_event(event, name)

    def _on_event(self, event: Started | StateChanged, worker: str) -> None:
        if isinstance(event, Started):
            last = self._last_of(worker)
            last.pid, last.incarnation = event.pid, event.incarnation
            self._add(worker, "starting", last.hangs.close(time.time()))
        # "starting" is sent with the pid, once there is a process.
        elif event.state != "starting":
            detail = event.detail
            if event.state in _ENDED:
                hang = self._last_of(worker).hangs.close(time.time())
                detail = join_reason(detail, hang) or ""
            self._add(worker, event.state, detail)

    def check(
        self, leases: Iterable[Lease], handler_limit_s: Callable[[str], float]
    ) -> list[tuple[str, str]]:
        """Find blocked event loops and handlers that take long, and the ends of both.

        Args:
            leases: Of the registry.
            handler_limit_s: Returns the seconds that a handler of a worker may run.

        Returns:
            Each as a worker and a text, for its log.
        """
        now, notes = time.time(), []
        for lease in leases:
            last = self._last.get(lease.name)
            if last is None or not lease.incarnation.startswith(last.incarnation):
                continue
            self._check_faults(last, lease)
            if last.state in _WATCHED:
                for hang in last.hangs.check(lease, now, handler_limit_s(lease.name)):
                    self._add(lease.name, _state_after(hang, last.state), hang.text)
                    notes.append((lease.name, hang.text))
        return notes

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
        self._keep(message)

    def _last_of(self, worker: str) -> "_LastEvent":
        last = self._last.get(worker)
        if last is None:
            last = self._last[worker] = _LastEvent(HangWatch())
        return last


def _state_after(hang: Hang, state: State) -> State:
    """The state of a worker that hangs, or does so no longer."""
    if hang.is_silent and state == "ready":
        return "unresponsive"
    return "ready" if hang.is_silent is False and state == "unresponsive" else state


class _LastEvent(msgspec.Struct):
    """The last event about a worker.

    Attributes:
        hangs: Of its process.
        incarnation: Its process; the default is the prefix of no incarnation, they are hexadecimal.
        faults: Bus faults of `fault_incarnation` that were sent.
    """

    hangs: HangWatch
    state: State | None = None
    pid: int | None = None
    incarnation: str = "?"
    fault_incarnation: str = ""
    faults: int = 0
