"""The messages of a measurement; only its processes know them."""

from pbus.messages import BusDataMessage, BusSystemMessage


class BenchMessage(BusDataMessage):
    """One of many messages.

    Attributes:
        number: Counts the messages from this sender to its receiver, from 0.
    """

    number: int
    text: str


class BenchEchoMessage(BusDataMessage):
    """The answer to a BenchMessage."""

    number: int
    text: str


class BenchUrgentMessage(BusSystemMessage):
    """A message that overtakes the others.

    Attributes:
        sent_at: Monotonic seconds, which all processes of one machine share.
    """

    sent_at: float
