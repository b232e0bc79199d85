"""State changes of workers as messages for whoever follows them; nobody need."""

import collections
import time
from collections.abc import Iterable

from pbus.leases import Lease
from pbus.messages import STATES_ADDRESS, BusWorkerStateMessage
from pbus.observe import State, is_unresponsive
from pbus.process.supervisor_events import Event, Started, StateChanged

_KEPT = 10_000  # while the broker is away; the oldest fall
_MOST_DETAIL = 1024  # characters


class StateEventQueue:
    """Turns what the supervisor tells its listeners into messages.

    Args:
        source: The supervisor's address.
        project: The name of its topology.
    """

    def __init__(self, source: str, project: str) -> None:
        self._source = source
        self._project = project
        self._known: dict[str, _Known] = {}
        self._untold: collections.deque[BusWorkerStateMessage] = collections.deque(maxlen=_KEPT)

    def hear(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, Started):
            known = self._known.setdefault(event.worker, _Known())
            known.pid, known.incarnation = event.pid, event.incarnation
            self._tell(event.worker, "starting")
        # That one is told with the pid, as soon as there is a process.
        elif isinstance(event, StateChanged) and event.state != "starting":
            self._tell(event.worker, event.state, event.detail)

    def look(self, leases: Iterable[Lease]) -> None:
        """Notice in the registry who does not beat any more, and who does again."""
        now = time.time()
        for lease in leases:
            known = self._known.get(lease.name)
            if known is None or not lease.incarnation.startswith(known.incarnation):
                continue
            self._look_at_faults(known, lease)
            is_silent = is_unresponsive(lease, now)
            if is_silent and known.state == "ready":
                self._tell(lease.name, "unresponsive", f"silent for {now - lease.beat:.0f} s")
            elif not is_silent and known.state == "unresponsive":
                self._tell(lease.name, "ready", "answers again")

    def _look_at_faults(self, known: "_Known", lease: Lease) -> None:
        if lease.incarnation != known.faulty:
            known.faulty, known.faults = lease.incarnation, 0
        if lease.faults > known.faults and known.state is not None:
            known.faults = lease.faults
            detail = f"a task of its bus ended by an error and goes on ({lease.faults} so far; its log has it)"
            self._tell(lease.name, known.state, detail)

    def take(self) -> list[BusWorkerStateMessage]:
        """What is to be sent, in order."""
        untold = list(self._untold)
        self._untold.clear()
        return untold

    def _tell(self, worker: str, state: State, detail: str = "") -> None:
        known = self._known.setdefault(worker, _Known())
        message = BusWorkerStateMessage(
            source=self._source,
            target=STATES_ADDRESS,
            project=self._project,
            worker=worker,
            state=state,
            previous=known.state,
            pid=known.pid,
            detail=detail[:_MOST_DETAIL],
        )
        known.state = state
        self._untold.append(message)


class _Known:
    """What was told of one worker last."""

    def __init__(self) -> None:
        self.state: State | None = None
        self.pid: int | None = None
        self.faulty = ""  # the incarnation of which so many faults were told
        self.faults = 0
        self.incarnation = "?"  # begins no incarnation: they are hexadecimal
