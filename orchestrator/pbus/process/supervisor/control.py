"""Control requests (start, stop, restart, apply) and the responses to them."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from pbus.errors import PbusError
from pbus.messages import (
    BusControlRequestMessage,
    BusControlResponseMessage,
    BusPlanRequestMessage,
    BusPlanResponseMessage,
    ControlOutcome,
)
from pbus.process.supervisor.changes.applying import Changes
from pbus.process.supervisor.changes.plan import Action
from pbus.process.supervisor.changes.rolling import Rolling, RollingRun
from pbus.process.supervisor.worker.restart_policy import describe_exit
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor.worker_set import WorkerSet

_MAX_REQUESTS = 256  # remembered for repeated requests; the oldest is dropped
_MAX_KEYS = 8  # shown
_STOPPING = "the project is stopping"
_LEAVING = "it is being taken out of the project"

Outcome = tuple[ControlOutcome, str]
Step: TypeAlias = Literal["start", "stop", "restart", "remove", "update", "roll"]
Response: TypeAlias = BusControlResponseMessage | BusPlanResponseMessage

_STEP_OF: Mapping[Action, Step] = {
    "add": "restart", "scale": "restart", "restart": "restart", "start": "restart",
    "remove": "remove", "update": "update",
}  # fmt: skip


class ControlServer:
    """Carries out control requests, and responds when the workers are in the requested state.

    Args:
        name: The supervisor's address.
        workers: Its workers.
        changes: Changes of them.
        rolling: Restarts of them one after the other.
    """

    def __init__(self, name: str, workers: WorkerSet, changes: Changes, rolling: Rolling) -> None:
        self.workers = workers
        self._name = name
        self._changes = changes
        self._rolling = rolling
        self._requests: dict[str, list[_WorkerRequest]] = {}
        self._open: list[_WorkerRequest] = []  # without a response since the last request for it
        self._responses: list[Response] = []

    async def plan(self, request: BusPlanRequestMessage) -> None:
        """Respond with the plan for a request, or with the error."""
        response = BusPlanResponseMessage(
            source=self._name, target=request.source, request_id=request.request_id
        )
        try:
            plan = await self._changes.plan(request.request_id, request.scale)
        except PbusError as error:
            kind, text = type(error).__name__, error.message
            response = replace(response, error=kind, text=text, hint=error.hint)
        else:
            response = replace(response, plan=msgspec.to_builtins(plan))
        self._responses.append(response)

    async def submit(self, request: BusControlRequestMessage) -> None:
        """Carry out a request. One that is repeated is only responded to again."""
        parts = self._requests.get(request.request_id)
        if parts is None:
            parts = [_WorkerRequest(request, worker, self.workers) for worker in request.workers]
            self._remember(request.request_id, parts)
            try:
                await self._execute(request, parts)
            except PbusError as error:
                for part in parts:
                    part.refuse(error.message)
        asked = [part for part in parts if part.worker in request.workers]
        self._open += [part for part in asked if part not in self._open]
        self.check()

    async def _execute(
        self, request: BusControlRequestMessage, parts: "list[_WorkerRequest]"
    ) -> None:
        """Carry out a request.

        Raises:
            PbusError: Nothing of it is carried out.
        """
        if request.action == "apply":
            actions = self._changes.carry_out(request.request_id)
            for part in parts:
                part.follow(_STEP_OF[actions[part.worker]] if part.worker in actions else "update")
            return
        starting = [part.worker for part in parts if part.starts_process]
        changed = await self._changes.reread(starting) if starting else {}
        if request.action == "roll":
            run = self._rolling.start(request.workers, timeout_s=request.timeout_s)
            for part in parts:
                part.follow("roll", changed.get(part.worker, ()), run)
            return
        for part in parts:
            part.execute(request.action, changed.get(part.worker, ()))

    def check(self) -> None:
        """Make the responses that have become possible."""
        still_open = []
        for part in self._open:
            response = part.response(self._name)
            if response is None:
                still_open.append(part)
            else:
                self._responses.append(response)
        self._open = still_open

    def drain_responses(self) -> list[Response]:
        """Return the responses to be sent, once."""
        responses, self._responses = self._responses, []
        return responses

    def _remember(self, request_id: str, parts: "list[_WorkerRequest]") -> None:
        self._requests[request_id] = parts
        while len(self._requests) > _MAX_REQUESTS:
            dropped = self._requests.pop(next(iter(self._requests)))
            self._open = [part for part in self._open if part not in dropped]


class _WorkerRequest:
    """One worker of one request.

    Attributes:
        worker: Its name.
    """

    def __init__(self, request: BusControlRequestMessage, worker: str, workers: WorkerSet) -> None:
        self.worker = worker
        self._request = request
        self._workers = workers
        self._process = workers.get(worker)
        self._step: Step = "update"
        self._changed: tuple[str, ...] = ()
        self._run: RollingRun | None = None
        self._start_count = 0  # that is to become ready
        self._outcome: Outcome | None = None

    @property
    def starts_process(self) -> bool:
        """Whether the request leads to a new process of the worker."""
        process = self._process
        if process is None or process.target.is_final or self._request.action == "stop":
            return False
        return self._request.action in {"restart", "roll"} or not is_satisfied("start", process)

    def execute(self, step: Literal["start", "stop", "restart"], changed: tuple[str, ...]) -> None:
        """Pass a request to the worker; `changed` are the keys that its next process takes."""
        if self._process is None:
            self.refuse("this supervisor has no such worker")
        elif self._process.target.is_final:
            self.refuse(_LEAVING if self._process.target.is_leaving else _STOPPING)
        else:
            if is_satisfied(step, self._process):
                self._outcome = "unchanged", ""
            _execute(step, self._process, self._request.timeout_s)
            self.follow(step, changed)

    def follow(
        self, step: Step, changed: tuple[str, ...] = (), run: RollingRun | None = None
    ) -> None:
        """Follow a step that the worker has begun.

        Args:
            step: The step.
            changed: Keys of the file that its next process takes.
            run: The rolling restart that it is part of.
        """
        self._step, self._changed, self._run = step, changed, run
        self._process = self._workers.get(self.worker) or self._process
        if self._process is not None:
            self._start_count = self._process.target_start_count

    def refuse(self, reason: str) -> None:
        """Respond that the request is not carried out."""
        self._outcome = "refused", reason

    def response(self, source: str) -> BusControlResponseMessage | None:
        """Return the response, or None while the request is being carried out."""
        process = self._process
        if self._outcome is None:
            self._outcome = self._find_outcome()
        if self._outcome is None:
            return None
        outcome, detail = self._outcome
        if process is not None and outcome == "done":
            detail = ", ".join(filter(None, (detail, _company(process, self.worker))))
        status = None if process is None else process.status
        return BusControlResponseMessage(
            source=source,
            target=self._request.source,
            request_id=self._request.request_id,
            worker=self.worker,
            outcome=outcome,
            state=None if status is None else status.state,
            pid=None if status is None or status.child is None else status.child.pid,
            detail=detail,
        )

    def _find_outcome(self) -> Outcome | None:
        process = self._process
        if self._step == "update" or process is None:
            return "done", ""
        if self._step == "remove":
            return self._removal_outcome(process)
        if self._run is not None:
            found = self._run.outcomes.get(self.worker)
        else:
            found = outcome_of(self._step, process, self._start_count)
        if found is None or not self._changed:
            return found
        return found[0], ", ".join(filter(None, (found[1], f"changed: {listed(self._changed)}")))

    def _removal_outcome(self, process: WorkerProcess) -> Outcome | None:
        if process.status.survivors:
            return "failed", process.status.survivors
        if self._workers.get(self.worker) is not process:
            return "done", process.status.open_messages
        return None if process.target.is_leaving else ("superseded", "wanted again meanwhile")


def _company(process: WorkerProcess, worker: str) -> str:
    """Return the others that a command for one of the workers of a process concerned, as text."""
    others = [name for name in process.names if name != worker]
    return f"and {', '.join(others)} with it, in one process" if others else ""


def listed(keys: Sequence[str]) -> str:
    """Return keys as text, the first few of many."""
    more = f" and {len(keys) - _MAX_KEYS} more" if len(keys) > _MAX_KEYS else ""
    return ", ".join(keys[:_MAX_KEYS]) + more


def _execute(step: Step, process: WorkerProcess, timeout_s: float | None) -> None:
    match step:
        case "start":
            process.start()
        case "stop":
            process.stop(timeout_s)
        case "restart":
            process.restart(timeout_s)


def is_satisfied(action: Step, process: WorkerProcess) -> bool:
    """Whether the requested state is the case already."""
    if action == "start":
        return process.status.state == "ready" and process.target.may_run
    return action == "stop" and not process.target.is_wanted and _is_down(process)


def outcome_of(action: Step, process: WorkerProcess, start_count: int) -> Outcome | None:
    """Return the outcome of a request, or None while it is being carried out.

    Args:
        action: The requested action.
        process: The worker.
        start_count: The start of it that is to become ready.
    """
    status = process.status
    if status.survivors and status.state == "stopping":
        return "failed", status.survivors
    if action == "stop":
        return _stop_outcome(process)
    if process.target.is_stopped_by_user:
        return "superseded", "stopped meanwhile"
    if process.target.is_final:
        return "superseded", _STOPPING
    if status.start_count < start_count:  # it was not started yet, or cannot be
        has_failed = status.state == "failed" and not process.target.is_wanted
        return ("failed", status.record().trouble or "") if has_failed else None
    return _start_outcome(action, process)


def _stop_outcome(process: WorkerProcess) -> Outcome | None:
    if process.target.is_wanted:
        return "superseded", "started again meanwhile"
    if not _is_down(process):
        return None
    survivors = process.status.survivors
    return ("failed", survivors) if survivors else ("done", _exit_text(process))


def _start_outcome(action: Step, process: WorkerProcess) -> Outcome | None:
    match process.status.state:
        case "ready":
            return "done", process.status.open_messages if action == "restart" else ""
        case "exited":
            return "done", _exit_text(process)
        case "backoff" | "failed":
            return "failed", process.status.record().trouble or _exit_text(process)
    return None


def _is_down(process: WorkerProcess) -> bool:
    return process.status.child is None and process.status.state in {"exited", "failed"}


def _exit_text(process: WorkerProcess) -> str:
    code, open_messages = process.status.code, process.status.open_messages
    return "" if code is None else ", ".join(filter(None, (describe_exit(code), open_messages)))
