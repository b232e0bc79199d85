"""The transport of messages that a broker does not keep: it carries and counts them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from pbus.bus.stream.send_buffer import SendBuffer
from pbus.bus.stream.send_stream import OutBatch
from pbus.concurrency.backoff import Backoff

# Told the end of what was posted: how many processes got each payload, or None: collect() says.
OnWritten = Callable[[list[OutBatch], list[int] | None], None]
REFUSED = -1  # in place of a number of processes: the broker refuses a payload, for now
ControlFrame = tuple[str, bytes]  # the incarnation of the process it is for, and what it says


class Transport(Protocol):
    """The way from one process to the others.

    Attributes:
        broker: What the log calls the other end.
        transient_errors: What a call ends with while the broker is away: perhaps it was done, perhaps not.
        supports_nowait: Whether it can send without waiting, see post(); else that is never called.
    """

    broker: str
    transient_errors: tuple[type[Exception], ...]
    supports_nowait: bool

    async def write(self, send_buffer: SendBuffer, payloads: Sequence[OutBatch]) -> list[int]:
        """Send what an send_buffer gathered, in order.

        Returns how many processes got each payload, or REFUSED.
        """
        ...

    def write_nowait(
        self, send_buffer: SendBuffer, payloads: list[OutBatch], on_end: OnWritten
    ) -> bool:
        """Send here and now, if nothing else is under way; returns False otherwise.

        `on_end` may be called before it returns.
        """
        ...

    async def result_of_nowait(
        self, send_buffer: SendBuffer, payloads: Sequence[OutBatch]
    ) -> list[int]:
        """Return what write() returns, for batches whose write_nowait() ended with None."""
        ...

    async def send_control(self, notes: Sequence[ControlFrame]) -> None:
        """Send notes to processes."""
        ...

    async def probe(
        self, send_buffer: SendBuffer, notes: Sequence[ControlFrame], addresses: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        """Send notes, and count who listens; returns how many heard each note, and the counts.

        The counts are of the processes that get what the send_buffer sends to each address.
        """
        ...

    def is_tap_copy(self, address: str) -> bool:
        """Whether what is sent there may reach no process: it is a copy of what is delivered elsewhere."""
        ...

    def backoff(self) -> Backoff:
        """Return the pauses while the broker is away."""
        ...
