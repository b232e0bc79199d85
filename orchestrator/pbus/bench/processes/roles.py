"""What players are told and what they answer: JSON lines over their stdin and stdout."""

import time
from typing import Literal, Self

import msgspec

from pbus.bench.results import Percentiles
from pbus.bus.base import WorkerBus
from pbus.bus.connect import connect

_KEY = "the-key-of-a-measurement"
Sealing = Literal["", "key", "encrypt"]

READY = b'"ready"'
MAX_LINE_BYTES = 64 * 1024
SEND_TIMEOUT_S = 120.0  # a queue of 200,000 messages at 0.2 ms each is waited for, not an error


class RoleConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A player's part; each role reads what concerns it.

    Attributes:
        url: The broker, with its password: it travels by pipe, never by argument.
        channel: The measurement's own.
        name: The player's name on the bus.
        targets: Whom to send to, in turn; empty for everyone.
        count: How many messages this player sends or is to receive.
        size: Bytes of text a message.
        busy_s: How long a handler keeps the processor busy.
        pause_s: How long the receiver sleeps in the middle.
        is_blocked: That sleep blocks the whole process, not only the handler.
        tries: Urgent messages.
        workers: Workers within the process.
        is_bare: The player is a subscriber of the bus, not a worker on a runner.
        is_durable: Messages are kept in the broker until handled, whatever is usual there.
        seal: "key": payloads are sealed; "encrypt": and hidden.
    """

    url: str = ""
    channel: str = ""
    name: str = "player"
    targets: tuple[str, ...] = ()
    count: int = 0
    size: int = 0
    busy_s: float = 0.0
    pause_s: float = 0.0
    is_blocked: bool = False
    tries: int = 0
    workers: int = 1
    is_bare: bool = False
    is_durable: bool = False
    seal: Sealing = ""

    def connect(self) -> WorkerBus:
        """A bus of pbus, not started."""
        return connect(
            self.url,
            channel=self.channel,
            send_timeout=SEND_TIMEOUT_S,
            delivery="at-least-once" if self.is_durable else None,
            key=_KEY if self.seal else "",
            encrypt=self.seal == "encrypt",
        )


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender answers: from the first send to the last message written."""

    count: int
    seconds: float
    cpu_s: float


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver answers: from the first message handled to the last.

    Attributes:
        first: Monotonic seconds, which all processes of one machine share.
        delays: From send() to the handler; without values where messages carry no time.
        duplicates: Messages that came again; they are not in `count`.
    """

    expected: int
    count: int
    first: float
    last: float
    cpu_s: float
    misordered: int
    delays: Percentiles
    duplicates: int = 0


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """What a player that measures delays answers; seconds each."""

    delays: list[float]
    cpu_s: float = 0.0


class Stopwatch:
    """Wall and processor time from its making on."""

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = time.process_time()

    def sent(self, count: int) -> Sent:
        """What a sender of so many messages answers."""
        return Sent(
            count=count,
            seconds=time.monotonic() - self._wall,
            cpu_s=time.process_time() - self._cpu,
        )

    @property
    def cpu_s(self) -> float:
        """Processor time since."""
        return time.process_time() - self._cpu

    @classmethod
    def start(cls) -> Self:
        """Begin now."""
        return cls()
