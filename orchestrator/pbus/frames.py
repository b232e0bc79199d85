"""Frames: the parts of a conversation, each carried by a BusFrameMessage."""

import enum
from typing import Any, ClassVar

from pbus.structs import Catalogue, WireStruct, own_fields


class FrameDirection(enum.StrEnum):
    """The direction of a frame through a pipeline."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"


class Frame(WireStruct):
    """The base of frames; subclass it for frames of your own, registered by class name.

    Attributes:
        metadata: Free JSON values for the application.
    """

    catalogue: ClassVar[Catalogue] = Catalogue()

    metadata: dict[str, Any] | None = None


class OpaqueFrame(Frame):
    """A frame of a class that this process does not have.

    Attributes:
        type_name: The name of its class.
        data: Its own fields, undecoded: an object of JSON, or a map of MessagePack.
    """

    type_name: str
    data: bytes = b"{}"

    def fields(self) -> dict[str, Any]:
        """Its own fields, decoded; bytes that travelled in JSON are text in base64.

        Raises:
            MessageDecodeError: The data is no object.
        """
        return own_fields(self.data, self.type_name)


Frame.catalogue.discard(OpaqueFrame)  # its name means no type on the wire


class TextFrame(Frame):
    """A piece of text."""

    text: str


class AudioRawFrame(Frame):
    """A stretch of raw audio.

    Attributes:
        audio: Interleaved signed 16-bit little-endian samples.
        sample_rate: In Hz.
        num_channels: 1 mono, 2 stereo.
    """

    audio: bytes
    sample_rate: int
    num_channels: int = 1

    @property
    def num_frames(self) -> int:
        """Samples per channel."""
        return len(self.audio) // (2 * self.num_channels)


class StartFrame(Frame):
    """The first frame of a conversation."""


class EndFrame(Frame):
    """The last frame: finish what is queued, then end."""


class CancelFrame(Frame):
    """Stop now; queued frames are dropped."""
