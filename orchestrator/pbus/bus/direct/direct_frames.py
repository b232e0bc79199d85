"""Frames between two processes: a payload with a header one way, counts of frames taken the other."""

import struct
from typing import NamedTuple

HEADER = struct.Struct("<IQQ")  # bytes of the payload, and the Broadcasts that go before it
ACK = struct.Struct("<Q")  # frames taken on this connection
REFUSED = (1 << 64) - 1  # instead of a count: the next frame is for an address that is not here


class Broadcasts(NamedTuple):
    """The position of a sender's lane in its broadcasts.

    Attributes:
        stream: The number of their stream; 0 for none.
        next_number: Of the next broadcast.
    """

    stream: int
    next_number: int


NO_BROADCASTS = Broadcasts(0, 0)
