"""Events of a supervisor, in the order they happened."""

from typing import Literal, TypeAlias

import msgspec

from pbus.observe import State

Stream = Literal["out", "err", "pbus"]


class BrokerReady(msgspec.Struct, frozen=True):
    """The bus is up: at the start, and again after the broker was away.

    Attributes:
        url: The broker's, with its password masked.
    """

    url: str


class BrokerLost(msgspec.Struct, frozen=True):
    """The broker went away; workers keep running and reconnect by themselves."""


class Started(msgspec.Struct, frozen=True):
    """A worker's process was started."""

    worker: str
    pid: int
    incarnation: str


class Line(msgspec.Struct, frozen=True):
    """A worker's process wrote a line.

    Attributes:
        stream: "out", "err", or "pbus" for lines of the supervisor.
        time: Time of reading, Unix seconds.
    """

    worker: str
    stream: Stream
    text: str
    time: float


class Ready(msgspec.Struct, frozen=True):
    """A worker is ready: registered, or merely started when it does not join the bus."""

    worker: str


class StateChanged(msgspec.Struct, frozen=True):
    """A worker entered a state.

    Attributes:
        detail: The reason; may be empty.
    """

    worker: str
    state: State
    detail: str


class Exited(msgspec.Struct, frozen=True):
    """A worker's process ended.

    Attributes:
        code: Its exit code; minus the signal's number when a signal ended it.
    """

    worker: str
    pid: int
    code: int


class GaveUp(msgspec.Struct, frozen=True):
    """A worker failed and will not be started again.

    Attributes:
        reason: Why it was given up.
        last_lines: The newest lines that it wrote.
        error: The line of its last process that most likely tells the cause.
    """

    worker: str
    reason: str
    last_lines: tuple[str, ...]
    error: str | None = None


class SessionEnded(msgspec.Struct, frozen=True):
    """A worker ended or cancelled the session: nothing is restarted any more."""

    reason: str


class Stopped(msgspec.Struct, frozen=True):
    """The supervisor is done; the last event.

    Attributes:
        code: What `Supervisor.run` returns.
    """

    code: int


Event: TypeAlias = (
    BrokerReady
    | BrokerLost
    | Started
    | Line
    | Ready
    | StateChanged
    | Exited
    | GaveUp
    | SessionEnded
    | Stopped
)
