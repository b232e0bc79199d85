"""Decoding of received messages, and refusal of what is none."""

import logging
import time

from pbus.bus.local.counters import Counters
from pbus.codec import decode_message, decode_opaque, is_broadcast, source_of, union_decoder
from pbus.concurrency.user_code import as_handler_error
from pbus.errors import MessageDecodeError, UnknownTypeError
from pbus.messages import BusMessage, Lane

logger = logging.getLogger(__name__)

_COMPLAIN_EVERY_S = 1.0
_SKIPPED = (
    16  # messages after one that does not fit the union: trying costs more than the union saves
)


class MessageDecoder:
    """Decodes what a process received; counts and logs what it cannot.

    Args:
        counters: Of the bus.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._skips = 0  # messages that are decoded by their type, without a try at the union
        self._complaint_due = 0.0
        self._unsaid: str | None = None  # what is wrong with the last that was refused

    def decode(self, line: bytes, lane: Lane | None = None) -> BusMessage | None:
        """Decode a message, or refuse it.

        Args:
            line: The message.
            lane: Of its arrival, where what is of an unknown type is opaque; None refuses it.
        """
        try:
            return self._decode(line, lane)
        except MessageDecodeError as error:
            self.refuse(error, line)
            return None

    def decode_stored(self, line: bytes, lane: Lane | None = None) -> BusMessage | None:
        """Decode a message that was kept, perhaps a worker's copy of a broadcast; see decode().

        Returns:
            None for a broadcast of a type that only others know, who have copies of their own.

        Raises:
            MessageDecodeError: It is none; it has been counted and logged.
        """
        try:
            return self._decode(line, lane)
        except MessageDecodeError as error:
            if isinstance(error, UnknownTypeError) and is_broadcast(line):
                self._counters.foreign += 1
                return None
            self.refuse(error, line)
            raise

    def decode_broadcast(self, line: bytes) -> BusMessage | None:
        """Decode a broadcast; types that only others know are their business, not a fault."""
        try:
            return self._decode(line, None)
        except UnknownTypeError:
            self._counters.foreign += 1
        except MessageDecodeError as error:
            self.refuse(error, line)
        return None

    def _decode(self, line: bytes, lane: Lane | None) -> BusMessage:
        """Decode a message by the union of the types met so far, or by its own type."""
        if not self._skips:
            try:
                message: BusMessage = union_decoder.decode(line)
            except BaseException as error:
                if as_handler_error(error, "a class of messages") is None:
                    raise
                self._skips = _SKIPPED
            else:
                return message
        self._skips -= 1
        return decode_message(line) if lane is None else decode_opaque(line, lane)

    def refuse(self, error: MessageDecodeError, line: bytes = b"", *, origin: str = "") -> None:
        """Count bytes that were no message; log at most once a second, and whose it was.

        Args:
            error: The reason.
            line: The message, if it is one.
            origin: Where it claims to be from.
        """
        self._counters.refused += 1
        said, source = str(error), source_of(line)
        if source or origin:
            said += f" (sent by {source})" if source else f" (it says it is from {origin})"
        self._unsaid = said if said.isprintable() else ascii(said)[1:-1]
        self.tidy()

    def tidy(self) -> None:
        """Log what was refused too soon after a refusal that was logged."""
        now = time.monotonic()
        if self._unsaid is None or now < self._complaint_due:
            return
        self._complaint_due = now + _COMPLAIN_EVERY_S
        logger.warning("%s (%d refused so far)", self._unsaid, self._counters.refused)
        self._unsaid = None
