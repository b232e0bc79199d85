"""The probes of one process: until it is ready, and whether it is healthy."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping

from pbus.concurrency.background import TaskOwner
from pbus.process.probes.checks import Surroundings, check
from pbus.process.probes.notify import VARIABLE, NotifySocket
from pbus.process.supervisor.worker.host import ProcessHost
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.system.spawn import Child
from pbus.topology.policy.policies import (
    BusProbe,
    HealthSpec,
    LineProbe,
    LogProbe,
    NotifyProbe,
    Probe,
    ReadySpec,
)

_READY_EVERY_S = 0.25
_CHECK_S = 5.0  # for one check of a ready probe
_NOT_REGISTERED = "it has not registered on the bus as ready"
_NOT_PRINTED = 'it has not printed {"ready": true}'
_CLOSE_S = 10.0  # a program that a check runs is killed first
# For a worker on the bus that gives no `ready`: large models take minutes to load.
_REGISTERED = ReadySpec(probe=BusProbe(), timeout_s=300.0)


def bus_problem(probe: BusProbe, status: WorkerStatus) -> str:
    """The reason that a worker is unhealthy by its heartbeats; "" where it is not."""
    if status.silent_s > probe.max_silence_s:
        return f"its event loop is blocked: no heartbeat for {status.silent_s:.0f} s"
    handler, limit_s = status.handler, probe.max_handler_s
    if handler is None or limit_s is None or (age_s := handler.age_s(time.time())) <= limit_s:
        return ""
    return f"{handler} has run for {age_s:.0f} s, its limit is {limit_s:.10g} s"


class Probing:
    """Runs the probes of one process.

    Args:
        status: Of the worker.
        host: Has the folder for its notify socket, and knows of the broker.
        incarnation: Of the process.
        on_change: Called when the ready probe has succeeded, and when the process is to be ended.

    Raises:
        OSError: The notify socket cannot be made.

    Attributes:
        verdict: Why the process is to be ended, as text; "" while it may run.
        is_hung: That is since it does not handle what comes, nor a message that asks it to end.
        is_passed: The ready probe has succeeded, or there is none.
    """

    def __init__(
        self,
        status: WorkerStatus,
        host: ProcessHost,
        incarnation: str,
        on_change: Callable[[], None],
    ) -> None:
        self.verdict = ""
        self.is_hung = False
        self._status = status
        self._on_change = on_change
        self._tasks = TaskOwner()
        self._passed = asyncio.Event()
        self._is_ready = asyncio.Event()
        self._socket: NotifySocket | None = None
        self._pending = "it was not probed yet"
        spec = status.instance.spec
        self._ready = spec.ready or (_REGISTERED if spec.joins else None)
        self._health = spec.health
        self._broker = host.broker
        if isinstance(self._kind, NotifyProbe):
            path = host.socket_dir() / f"n{incarnation[:12]}"
            self._socket = NotifySocket(path, self._pass, self._on_status)
        elif isinstance(self._kind, LogProbe):
            self._pattern = re.compile(self._kind.pattern)
            status.on_output = self._on_line
        elif self._kind is None or isinstance(self._kind, BusProbe):
            self._passed.set()
        status.is_probed = self.is_passed

    @property
    def is_passed(self) -> bool:
        """Whether the process may count as ready."""
        return self._passed.is_set()

    @property
    def env(self) -> Mapping[str, str]:
        """Variables that the process needs for its probes."""
        return {} if self._socket is None else {VARIABLE: str(self._socket.path)}

    def start(self, child: Child) -> None:
        """Begin to check."""
        around = Surroundings(child.launch.env, child.launch.cwd)
        if self._ready is not None:
            name = f"pbus {self._status.name} ready probe"
            self._tasks.spawn(self._watch_start(self._ready, around), name)
        if self._health is not None:
            name = f"pbus {self._status.name} health probe"
            self._tasks.spawn(self._watch_health(self._health, around), name)

    def on_ready(self) -> None:
        """Handle a process that counts as ready: from now on it is to be healthy."""
        self._is_ready.set()

    async def close(self) -> None:
        """Stop checking."""
        self._status.on_output = lambda _text: None
        if self._socket is not None:
            self._socket.close()
        await self._tasks.close(_CLOSE_S)

    @property
    def _kind(self) -> Probe | None:
        return None if self._ready is None else self._ready.probe

    def _on_status(self, text: str) -> None:
        self._set_pending(f"it has not sent READY=1; its status: {text}")

    def _on_line(self, text: str) -> None:
        if self._pattern.search(text):
            self._pass()

    def _pass(self) -> None:
        if not self.is_passed:
            self._passed.set()
            self._status.is_probed = True
            self._on_change()

    async def _watch_start(self, spec: ReadySpec, around: Surroundings) -> None:
        """Give the process its time to become ready, again where the broker was away meanwhile."""
        while not self._is_ready.is_set():
            try:
                async with asyncio.timeout(spec.timeout_s):
                    await self._until_passed(spec.probe, around)
                    is_line = isinstance(spec.probe, LineProbe)
                    self._pending = _NOT_PRINTED if is_line else _NOT_REGISTERED
                    await self._is_ready.wait()
            except TimeoutError:
                if not (self._status.instance.spec.joins and self._broker.was_away):
                    self._end(f"not ready within {spec.timeout_s:g} s: {self._pending}")
                    return

    async def _until_passed(self, probe: Probe, around: Surroundings) -> None:
        match probe:
            case NotifyProbe():
                self._set_pending("it has not sent READY=1")
                await self._passed.wait()
            case LogProbe(pattern):
                self._set_pending(f"no line matches {pattern!r}")
                await self._passed.wait()
            case BusProbe():
                pass
            case _:
                while reason := await check(probe, around, _CHECK_S):
                    self._set_pending(reason)
                    await asyncio.sleep(_READY_EVERY_S)
                self._pass()

    def _set_pending(self, reason: str) -> None:
        self._pending = reason
        self._status.set_pending(reason)

    async def _watch_health(self, spec: HealthSpec, around: Surroundings) -> None:
        await self._is_ready.wait()
        await asyncio.sleep(max(0.0, spec.start_period_s - self._age_s()))
        failures = 0
        while True:
            reason = await self._check_health(spec, around)
            failures = failures + 1 if reason else 0
            if not reason:
                self._status.set_health("")
            elif failures >= spec.failures:
                text = f"unhealthy, {failures} checks failed: {reason}"
                if spec.restart:
                    self.is_hung = isinstance(spec.probe, BusProbe)
                    self._end(text)
                    return
                self._status.set_health(text)
            await asyncio.sleep(spec.every_s)

    async def _check_health(self, spec: HealthSpec, around: Surroundings) -> str:
        match spec.probe:
            case BusProbe():
                return "" if self._broker.was_away else bus_problem(spec.probe, self._status)
            case NotifyProbe() | LogProbe():
                return ""
            case probe:
                return await check(probe, around, spec.timeout_s)

    def _age_s(self) -> float:
        ready_at = self._status.ready_at
        return 0.0 if ready_at is None else self._status.clock() - ready_at

    def _end(self, verdict: str) -> None:
        self.verdict = verdict
        self._status.note(verdict, is_error=True)
        self._on_change()
