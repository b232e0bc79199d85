"""Errors of processes and their control."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pbus.errors.base_error import PbusError


class ProcessError(PbusError):
    """A process or a project cannot be started, found or stopped."""


class BrokerStartError(ProcessError):
    """The embedded broker did not start."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the embedded {what} did not start: {reason}")


class ListenError(ProcessError):
    """The address of an endpoint cannot be had.

    Attributes:
        address: The address, HOST:PORT.
    """

    def __init__(self, what: str, address: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        super().__init__(
            f"cannot listen on {address} for {what}: {reason}",
            hint=f"give `{what}: {{listen: HOST:PORT}}` another address, or end what has this one",
        )
        self.address = address


class LoopMissingError(ProcessError):
    """The topology asks for an event loop that is not installed."""

    def __init__(self, loop: str) -> None:
        super().__init__(
            f"`loop: {loop}` needs the Python module {loop!r}, which is not installed",
            hint=f"pip install 'pbus-orchestrator[{loop}]', or leave `loop` out",
        )
        self.loop = loop


class WorkerLoadError(ProcessError):
    """A worker class cannot be imported or constructed.

    Attributes:
        is_final: Trying again changes nothing: the class is not there.
    """

    def __init__(self, reference: str, problem: str, *, is_final: bool = True) -> None:
        super().__init__(f"worker {reference!r} cannot be loaded: {problem}")
        self.reference = reference
        self.is_final = is_final


class StacksUnavailableError(ProcessError):
    """The stacks of a process cannot be had.

    Attributes:
        is_foreign: It is no process of a pbus worker.
    """

    def __init__(self, pid: int, reason: str, *, is_foreign: bool = False) -> None:
        hint = f"`py-spy dump --pid {pid}` shows those of any Python program" if is_foreign else ""
        super().__init__(f"no stacks of process {pid}: {reason}", hint=hint or None)
        self.pid = pid
        self.is_foreign = is_foreign


class ControlError(ProcessError):
    """Workers were not started, stopped or restarted as asked.

    Attributes:
        action: "start", "stop" or "restart".
        results: The result of each worker that was asked for (ControlResult).
        failed: The names of those that failed.
    """

    def __init__(
        self, action: str, done: str, results: Sequence[Any], failed: Sequence[str]
    ) -> None:
        super().__init__(
            f"not {done}: {', '.join(failed)}", hint="`pbus logs WORKER` shows what it wrote"
        )
        self.action = action
        self.results = list(results)
        self.failed = tuple(failed)


class ControlRefusedError(ProcessError):
    """A supervisor does not carry out a request: nothing was changed."""


class ControlTimeoutError(ProcessError, TimeoutError):
    """Workers were not started, stopped or restarted in time; their supervisors still try it.

    Attributes:
        action: "start", "stop" or "restart".
        workers: The names of those that were not done.
        states: What each was doing, by name, as far as it is known.
    """

    def __init__(
        self,
        action: str,
        workers: Sequence[str],
        timeout_s: float,
        states: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        shown = [f"{name} ({states[name]})" if name in states else name for name in workers]
        super().__init__(
            f"cannot {action} within {timeout_s:g} s: {', '.join(shown)}; it is still tried"
        )
        self.action = action
        self.workers = tuple(workers)
        self.states = dict(states)
        self.timeout_s = timeout_s


class StartupError(ProcessError):
    """Workers failed before they were ready.

    Attributes:
        workers: The names of those that failed.
        failed: Why each failed, by name.
        waiting: The state of each other that was not ready, by name; empty, too, where the project
            has ended by itself (given as None).
    """

    def __init__(self, failed: Mapping[str, str], waiting: Mapping[str, str] | None = None) -> None:
        lines = [f"worker {name!r} failed: {why}" for name, why in failed.items()]
        lines += [f"worker {name!r} is not ready: {why}" for name, why in (waiting or {}).items()]
        hint = "what else was started goes on running; `pbus down` stops it"
        if waiting is None:
            hint = "nothing of the project runs any more; `pbus logs` shows more"
        super().__init__("\n".join(lines), hint=hint)
        self.workers = tuple(failed)
        self.failed = dict(failed)
        self.waiting = dict(waiting or {})


class NotReadyError(ProcessError, TimeoutError):
    """Workers were not ready in time.

    Attributes:
        waiting: The state of each that was not ready, by name.
    """

    def __init__(self, waiting: Mapping[str, str], timeout_s: float) -> None:
        names = "; ".join(f"{name} ({why})" for name, why in waiting.items())
        super().__init__(f"not ready within {timeout_s:g} s: {names or 'the supervisor'}")
        self.waiting = dict(waiting)
        self.timeout_s = timeout_s


class SurvivorsError(ProcessError):
    """Processes of a project could not be ended."""

    def __init__(self, survivors: Mapping[str, str]) -> None:
        told = "; ".join(f"{name}: {what}" for name, what in survivors.items())
        super().__init__(
            f"not all of the project has ended: {told}",
            hint="end it as its user or as root (`kill PID`)",
        )
        self.survivors = dict(survivors)
