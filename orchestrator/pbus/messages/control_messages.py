"""Messages of supervisors: control requests, answers, changes of state."""

from typing import Literal

from pbus.messages.message_base import BusSystemMessage

ControlAction = Literal["start", "stop", "restart"]
ControlOutcome = Literal["done", "unchanged", "failed", "superseded", "refused"]

# The address of state changes: not a name of a worker. With ~ a message without a receiver is no loss.
STATES_ADDRESS = "~states"


class BusControlRequestMessage(BusSystemMessage):
    """Asks a supervisor to start, stop or restart workers of its own.

    Sent again with the same `request_id`, it asks for the answers only.

    Attributes:
        request_id: Named by the answers.
        workers: Names of instances.
        timeout_s: Seconds for accepted jobs; None for the supervisor's default.
    """

    request_id: str
    action: ControlAction
    workers: tuple[str, ...]
    timeout_s: float | None = None


class BusControlResponseMessage(BusSystemMessage):
    """A supervisor's answer about one worker, sent when the request is done or has failed.

    Attributes:
        request_id: Of the request.
        outcome: "unchanged": it was so before; "failed": the worker did not become ready;
            "superseded": a later request asked for the opposite; "refused": not possible now.
        state: The worker's state now.
        pid: Of its process.
        detail: The reason, in a few words; may be empty.
    """

    request_id: str
    worker: str
    outcome: ControlOutcome
    state: str | None = None
    pid: int | None = None
    detail: str = ""


class BusWorkerStateMessage(BusSystemMessage):
    """Reports a change of state of a worker's process, published by its supervisor.

    Attributes:
        project: The name of the supervisor's topology.
        state: As in `pbus ps`.
        previous: The state before; None for the first one.
        pid: Of the process; None before there is one.
        detail: The reason, in a few words; may be empty.
    """

    project: str
    worker: str
    state: str
    previous: str | None = None
    pid: int | None = None
    detail: str = ""
