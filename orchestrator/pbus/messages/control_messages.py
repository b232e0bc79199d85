"""Messages of supervisors: control requests, answers, changes of state."""

from typing import Any, Literal

from pbus.messages.message_base import BusSystemMessage

ControlAction = Literal["start", "stop", "restart", "roll", "apply"]
ControlOutcome = Literal["done", "unchanged", "failed", "superseded", "refused"]

# The address of state changes: not a name of a worker. With ~ a message without a receiver is no loss.
STATES_ADDRESS = "~states"
# The address of copies for followers, likewise.
TRACES_ADDRESS = "~traces"


class BusControlRequestMessage(BusSystemMessage):
    """Asks a supervisor to start, stop or restart workers of its own.

    "roll" restarts them one after the other, each when the one before is ready. "apply" carries out the plan that was made for the same `request_id`.
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


class BusPlanRequestMessage(BusSystemMessage):
    """Asks a supervisor for the changes that lead to what is wanted; nothing is changed yet.

    Sent again with the same `request_id`, it asks for the answer only.

    Attributes:
        request_id: Names the file in the state folder that has the request, for changes of the
            topology, and the plan for "apply".
        scale: Wanted numbers of replicas by worker; None for changes of the topology.
    """

    request_id: str
    scale: dict[str, int] | None = None


class BusPlanResponseMessage(BusSystemMessage):
    """A supervisor's plan, or the reason why there is none.

    Attributes:
        request_id: Of the request.
        plan: A plan's fields (see `pbus.process.supervisor.changes.plan`); None after an error.
        error: The name of the error's class.
        text: The error's message.
        hint: The error's hint.
    """

    request_id: str
    plan: dict[str, Any] | None = None
    error: str = ""
    text: str = ""
    hint: str | None = None


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


class BusTraceMessage(BusSystemMessage):
    """A copy, for followers, of a message that stayed in its process; sent as `source`'s.

    Attributes:
        kind: The type of the message.
        to: Its receiver; None for everyone there.
        fields: Its own fields as JSON values, or what is shown of them.
        urgent: It is of the system lane.
    """

    target: str | None = TRACES_ADDRESS
    kind: str
    to: str | None = None
    fields: dict[str, Any]
    urgent: bool = False
