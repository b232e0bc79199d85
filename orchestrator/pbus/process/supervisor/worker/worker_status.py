"""The state of one worker, and the events about its changes."""

import time
from collections.abc import Callable

from pbus.leases import Lease
from pbus.observe import ProcessRecord, State, join_reason
from pbus.process.supervisor.worker.end_facts import ProcessFacts
from pbus.process.supervisor.worker.recent_output import RecentOutput
from pbus.process.supervisor.worker.restart_policy import History
from pbus.process.supervisor.worker.usage import Usage
from pbus.process.supervisor_events import Event, GaveUp, Line, StateChanged, Stream
from pbus.process.system.spawn import Child
from pbus.running_handlers import RunningHandler
from pbus.topology.model import WorkerInstance

LONG_HANDLER_S = 30.0  # jobs may well take so long; what takes longer may hang


class WorkerStatus:
    """The state of one worker.

    Args:
        instance: The worker.
        clock: Seconds, monotonic.

    Attributes:
        child: Its process; None while none runs.
        code: Exit code of the last process; None while one runs.
        open_messages: Fate of the messages that the last process held, as text.
        is_active: It handles messages, by the registry.
        is_healthy: What the last health checks said; None before the first.
        silent_s: Seconds since the last heartbeat of its event loop, when the registry was last read.
        handler: The oldest handler in progress at that heartbeat.
        jobs_done: The jobs that its process had finished by then.
        is_probed: The ready probe has succeeded, or there is none.
        on_output: Called with each line that the process writes.
        survivors: Processes of the last one's group that could not be ended, as text.
        start_count: Processes started so far.
        begun_at: Time at which the last process was started.
        ready_at: Time at which the process became ready; None before.
        has_been_ready: This process or an earlier one was ready: what is missing now was there.
        history: For the restart policy.
        facts: Of its process, for a crash capsule.
        emit: Called with each event.
    """

    def __init__(self, instance: WorkerInstance, clock: Callable[[], float]) -> None:
        self.instance = instance
        self.name = instance.name
        self.clock = clock
        self.state: State = "starting"
        self.child: Child | None = None
        self.code: int | None = None
        self.open_messages = ""
        self.is_active = True
        self.is_healthy: bool | None = None
        self.silent_s = 0.0
        self.handler: RunningHandler | None = None
        self.jobs_done = 0
        self.on_output: Callable[[str], None] = lambda _text: None
        self.is_probed = True
        self.survivors = ""
        self.start_count = 0
        self.begun_at = clock()
        self.ready_at: float | None = None
        self.has_been_ready = False
        self.history = History()
        self.usage: Usage | None = None
        self.facts = ProcessFacts()
        self.output = RecentOutput()
        self.emit: Callable[[Event], None] = lambda _event: None
        self._reason: str | None = None  # of the state, without the worker's output
        self._last_end: str | None = None  # of the process before, if it never was ready

    def begin_start(self) -> None:
        """Count a start and enter "starting"."""
        self.start_count += 1
        self.begun_at = self.clock()
        self.ready_at = self._reason = self.code = self.is_healthy = None
        self.silent_s, self.handler, self.jobs_done = 0.0, None, 0
        self.facts.begin()
        self.output.forget_error()
        self.enter("starting")

    def on_lease(self, lease: Lease, now: float) -> None:
        """Take in the lease of a worker of its process; `now` in Unix seconds."""
        self.facts.leases[lease.name] = lease
        leases = self.facts.leases.values()
        self.is_active = all(one.active for one in leases)
        self.silent_s = now - lease.beat if lease.beat else 0.0  # one loop for all
        handlers = [one.handler for one in leases if one.handler is not None]
        self.handler = min(handlers, key=lambda one: one.since, default=None)
        self.jobs_done = sum(one.done for one in leases)

    @property
    def handler_limit_s(self) -> float:
        """Seconds after which a handler that still runs is an event."""
        health = self.instance.spec.health
        limit_s = getattr(health.probe, "max_handler_s", None) if health else None
        return LONG_HANDLER_S if limit_s is None else limit_s

    def set_ready(self) -> None:
        """Enter "ready"."""
        self._reason = self._last_end = None
        self.ready_at = self.clock()
        self.has_been_ready = True
        self.enter("ready")

    def enter(self, state: State, detail: str = "") -> None:
        """Change the state and emit it; while it is being stopped the record shows the detail."""
        if state == "stopping":
            self._reason = detail or None
        if state != self.state or detail:
            self.state = state
            self.emit(StateChanged(self.name, state, detail))

    def enter_waiting(self, reason: str) -> None:
        """Enter "waiting", for a dependency; the record shows the reason."""
        if self.state != "waiting" or self._reason != reason:
            self._reason = reason
            self.enter("waiting", reason)

    def set_pending(self, reason: str) -> None:
        """Show in the record why there is no process, or the ready probe has not succeeded, yet."""
        self._reason = reason

    def set_health(self, reason: str) -> None:
        """Enter "unhealthy", or "ready" where there is no reason against it."""
        was_healthy, self.is_healthy = self.is_healthy, not reason
        if self.state in {"ready", "unhealthy"} and was_healthy != self.is_healthy:
            self._reason = reason or None
            self.enter("unhealthy" if reason else "ready", reason or "healthy")

    def enter_trouble(self, state: State, reason: str, detail: str = "") -> None:
        """Enter "backoff" or "failed"; the record shows the reason and the worker's own line.

        Args:
            state: One of them.
            reason: Why.
            detail: For the event, behind both.
        """
        self._reason = reason
        end = join_reason(reason, self._error()) or ""
        if self.ready_at is None:
            self._last_end = end
        self.enter(state, f"{end}, {detail}" if detail else end)

    def fail(self, reason: str) -> None:
        """Give the worker up."""
        self.enter_trouble("failed", reason)
        self.note(f"failed: {reason}")
        error = self._error()
        self.emit(GaveUp(self.name, reason, self.output.lines, None if error == reason else error))

    def note(self, text: str, *, is_error: bool = False) -> None:
        """Write a line of pbus' own into the worker's log; an error is shown by the record, too."""
        if is_error:
            self.output.set_error(text)
        self.emit(Line(self.name, "pbus", text, time.time()))

    def on_line(self, stream: Stream, text: str) -> None:
        """Handle a line of the process."""
        self.output.add(stream, text)
        self.on_output(text)
        self.emit(Line(self.name, stream, text, time.time()))

    @property
    def has_succeeded(self) -> bool:
        """Whether the process has ended, and that counts as a good end."""
        return self.state == "exited" and self.instance.spec.is_success(self.code)

    def record(self) -> ProcessRecord:
        """Return the row of `pbus ps`."""
        child, usage = self.child, self.usage if self.child else None
        return ProcessRecord(
            name=self.name,
            state=self.state,
            joins=self.instance.spec.joins,
            pid=child.pid if child else None,
            incarnation=child.incarnation if child else None,
            started_at=child.started_at if child else None,
            restarts=max(0, self.start_count - 1),
            exit_code=self.code,
            cpu_percent=usage.cpu_percent if usage else None,
            rss_bytes=usage.rss_bytes if usage else None,
            os_state=usage.os_state if usage else "",
            is_probed=self.is_probed,
            has_succeeded=self.has_succeeded,
            reason=self._shown_reason(),
            last_end=self._last_end,
            error=self._error() if self.state in {"failed", "backoff"} else None,
        )

    def _shown_reason(self) -> str | None:
        is_queued = self.state == "starting" and self.child is None
        is_probing = self.state == "starting" and not self.is_probed
        has_reason = self.state in {"failed", "backoff", "waiting", "unhealthy", "stopping"}
        return self._reason if has_reason or is_probing or is_queued else None

    def _error(self) -> str | None:
        return self.output.error(self.code)
