"""Recordings: the messages of a project in the order in which they were seen."""

from typing import Final, Protocol

import msgspec

from pbus.bus.tap import TapMessage
from pbus.client.traffic.message_tail import TailMessage
from pbus.codec import Header, decode_header

VERSION: Final = 1


class RecordingHead(msgspec.Struct, frozen=True, kw_only=True):
    """The beginning of a recording.

    Attributes:
        began: Unix seconds.
        version: Of the format.
    """

    project: str
    began: float
    version: int = VERSION


class RecordingEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a recording; without one it was broken off.

    Attributes:
        ended: Unix seconds.
        messages: The number of messages.
        missed: Messages known to have passed unseen.
        reason: Why it is not complete, where that is so.
    """

    ended: float
    messages: int
    missed: int = 0
    reason: str = ""


class RecordedMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message of a recording.

    Attributes:
        at: When it was seen, Unix seconds.
        lane: "d" or "s".
        local: It stayed in its process, and this is a copy.
        undelivered: No process was there to take it.
        message: The whole message as JSON.
    """

    at: float
    lane: str
    local: bool = False
    undelivered: bool = False
    message: msgspec.Raw

    @classmethod
    def of(cls, message: TailMessage, at: float) -> "RecordedMessage":
        """The record of a message that passes."""
        return cls(
            at=at,
            lane="s" if message.is_urgent else "d",
            local=message.is_local,
            undelivered=not message.is_reached,
            message=msgspec.Raw(message.body),
        )

    @property
    def line(self) -> bytes:
        """The message as it is sent."""
        return bytes(self.message)

    @property
    def header(self) -> Header:
        """The header of the message.

        Raises:
            MessageDecodeError: It has none.
        """
        return decode_header(self.line)

    def as_seen(self) -> TailMessage:
        """The message as a follower sees it.

        Raises:
            MessageDecodeError: It has no header.
        """
        item = TapMessage(header=self.header, body=self.line, lane=self.lane, is_local=self.local)
        return TailMessage.of(item, is_reached=not self.undelivered)


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that was read.

    Attributes:
        end: None where it was broken off.
        problem: Why reading it ended early; "" where it did not.
    """

    head: RecordingHead
    messages: tuple[RecordedMessage, ...]
    end: RecordingEnd | None = None
    problem: str = ""

    @property
    def incomplete(self) -> str:
        """The reason that messages are missing; "" where none are."""
        if self.end is None:
            return self.problem or "it was broken off"
        if self.end.missed:
            return f"{self.end.missed:,} messages passed unseen"
        if self.end.messages != len(self.messages):
            return f"it has {len(self.messages):,} of {self.end.messages:,} messages"
        return self.end.reason


class RecordingWriter(Protocol):
    """Writes a recording to a file."""

    def add(self, message: RecordedMessage) -> None:
        """Write a message. Raises OSError."""
        ...

    def flush(self) -> None:
        """Have what was written survive this process. Raises OSError."""
        ...

    def end(self, end: RecordingEnd) -> None:
        """Write the end. Raises OSError."""
        ...

    def close(self) -> None:
        """Close the file. Idempotent."""
        ...
