"""Configuration and results of benchmark processes: JSON lines over their stdin and stdout."""

import time

import msgspec

from pbus.bench.results import Percentiles
from pbus.settings import BusSettings

READY = b'"ready"'
MAX_LINE_BYTES = 64 * 1024
CHOSEN_EVERY = 10  # of so many messages a follower shows one
SEND_TIMEOUT_S = 120.0  # a queue of 200,000 messages at 0.2 ms each is waited for, not an error


class RoleConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process' configuration; each role reads what concerns it.

    Attributes:
        bus: With the broker's password: it travels by pipe, never by argument.
        name: The process' name on the bus.
        targets: The names to send to, in turn; empty for everyone.
        count: Messages that this process sends or is to receive.
        size: Bytes of text a message.
        busy_s: How long a handler keeps the processor busy.
        pause_s: How long the receiver sleeps in the middle.
        is_blocked: That sleep blocks the whole process, not only the handler.
        tries: Urgent messages.
        workers: Workers within the process.
        rate: Messages a second that it sends; 0 for as fast as the bus takes them.
        at_once: Messages that are sent together.
        peer_url: The server of another system.
        is_bare: The process is a subscriber of the bus, not a worker on a runner.
    """

    bus: BusSettings = BusSettings()
    name: str = "process"
    targets: tuple[str, ...] = ()
    count: int = 0
    size: int = 0
    busy_s: float = 0.0
    pause_s: float = 0.0
    is_blocked: bool = False
    tries: int = 0
    workers: int = 1
    at_once: int = 1
    peer_url: str = ""
    is_bare: bool = False
    rate: int = 0


class SendResult(msgspec.Struct, frozen=True, kw_only=True):
    """A sender's result, from the first send to the last message written."""

    count: int
    seconds: float
    cpu_s: float


class StoredResult(SendResult, frozen=True, kw_only=True):
    """The result of a sender to a queue without a consumer; `stored` are in the broker."""

    stored: int


class ReceiveResult(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver's result, from the first message handled to the last.

    Attributes:
        first: Monotonic seconds, which all processes of one machine share.
        delays: From send() to the handler; without values where messages carry no time.
        duplicates: Messages that came again; they are not in `count`.
        chosen: Those of `count` that a follower shows.
    """

    expected: int
    count: int
    first: float
    last: float
    cpu_s: float
    misordered: int
    delays: Percentiles
    duplicates: int = 0
    chosen: int = 0


class FollowResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a follower that shows one of CHOSEN_EVERY messages.

    Attributes:
        count: Messages that it showed.
        missed: Messages known to have passed it unseen.
        cpu_s: Processor time until the last of them.
    """

    count: int
    missed: int
    cpu_s: float


class DelayResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a process that measures delays; seconds each."""

    delays: list[float]
    cpu_s: float = 0.0


class Stopwatch:
    """Wall and processor time since its construction."""

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = time.process_time()

    def sent(self, count: int) -> SendResult:
        """The result of a sender of so many messages."""
        return SendResult(
            count=count,
            seconds=time.monotonic() - self._wall,
            cpu_s=time.process_time() - self._cpu,
        )

    @property
    def cpu_s(self) -> float:
        """Processor seconds so far."""
        return time.process_time() - self._cpu
