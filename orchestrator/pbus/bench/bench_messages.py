"""The messages a measurement sends; known only to processes that take part in one."""

from pbus.messages import BusDataMessage, BusSystemMessage


class BenchMessage(BusDataMessage):
    """One of many.

    Attributes:
        number: Counts what its receiver is sent by this sender, from 0.
    """

    number: int
    text: str


class BenchEchoMessage(BusDataMessage):
    """The answer to a BenchMessage."""

    number: int
    text: str


class BenchUrgentMessage(BusSystemMessage):
    """One that has to overtake.

    Attributes:
        sent_at: Monotonic seconds, which all processes of one machine share.
    """

    sent_at: float
