"""Control requests (start, stop, restart) and the responses to them."""

from pbus.messages import (
    BusControlRequestMessage,
    BusControlResponseMessage,
    ControlAction,
    ControlOutcome,
)
from pbus.process.supervisor.worker.restart_policy import describe_exit
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor.worker_set import WorkerSet

_MAX_REQUESTS = 256  # remembered for repeated requests; the oldest is dropped
_STOPPING = "the project is stopping"

Outcome = tuple[ControlOutcome, str]


class ControlServer:
    """Carries out control requests, and responds when the workers are in the requested state.

    Args:
        name: The supervisor's address.
        workers: Its workers.
    """

    def __init__(self, name: str, workers: WorkerSet) -> None:
        self._name = name
        self._workers = workers
        self._requests: dict[str, list[_WorkerRequest]] = {}
        self._open: list[_WorkerRequest] = []  # without a response since the last request for it
        self._responses: list[BusControlResponseMessage] = []

    def submit(self, request: BusControlRequestMessage) -> None:
        """Carry out a request. One that is repeated is only responded to again."""
        parts = self._requests.get(request.request_id)
        if parts is None:
            parts = [_WorkerRequest(request, worker, self._workers) for worker in request.workers]
            self._remember(request.request_id, parts)
            for part in parts:
                part.execute()
        asked = [part for part in parts if part.worker in request.workers]
        self._open += [part for part in asked if part not in self._open]
        self.check()

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

    def drain_responses(self) -> list[BusControlResponseMessage]:
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
        self._process = workers.get(worker)
        self._start_count = 0  # that is to become ready
        self._outcome: Outcome | None = None

    def execute(self) -> None:
        """Pass the request to the worker."""
        if self._process is None:
            self._outcome = "refused", "this supervisor has no such worker"
        elif self._process.target.is_final:
            self._outcome = "refused", _STOPPING
        else:
            if is_satisfied(self._request.action, self._process):
                self._outcome = "unchanged", ""
            _execute(self._request, self._process)
            self._start_count = self._process.target_start_count

    def response(self, source: str) -> BusControlResponseMessage | None:
        """Return the response, or None while the request is being carried out."""
        process = self._process
        if self._outcome is None and process is not None:
            self._outcome = outcome_of(self._request.action, process, self._start_count)
        if self._outcome is None:
            return None
        outcome, detail = self._outcome
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


def _execute(request: BusControlRequestMessage, process: WorkerProcess) -> None:
    match request.action:
        case "start":
            process.start()
        case "stop":
            process.stop(request.timeout_s)
        case "restart":
            process.restart(request.timeout_s)


def is_satisfied(action: ControlAction, process: WorkerProcess) -> bool:
    """Whether the requested state is the case already."""
    if action == "start":
        return process.status.state == "ready" and process.target.may_run
    return action == "stop" and not process.target.is_wanted and _is_down(process)


def outcome_of(action: ControlAction, process: WorkerProcess, start_count: int) -> Outcome | None:
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


def _start_outcome(action: ControlAction, process: WorkerProcess) -> Outcome | None:
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
