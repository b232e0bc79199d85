"""Copies of messages that stay in a process, for those that follow the channel."""

from typing import Any

import msgspec

from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.conversion import to_wire
from pbus.errors import MessageEncodeError
from pbus.messages import BusTraceMessage

_SHOWN_BYTES = 4096


def trace_of(message: Any, source: str) -> BusTraceMessage:
    """The copy of a message: its fields, of frames and long messages the size only.

    Args:
        message: The message.
        source: The address of its sender.
    """
    try:
        fields = _fields_of(message)
    except MessageEncodeError as error:
        fields = {"problem": error.message}
    encoded = msgspec.json.encode(fields)
    if len(encoded) > _SHOWN_BYTES:
        fields = {"size": len(encoded)}
    return BusTraceMessage(
        source=source,
        kind=type(message).__name__,
        to=message.target,
        fields=fields,
        urgent=isinstance(message, theirs.BusSystemMessage),
    )


def _fields_of(message: Any) -> dict[str, Any]:
    if isinstance(message, theirs.BusFrameMessage):
        shown = {"type": type(message.frame).__name__, **_sizes(message.frame)}
        fields = {"frame": shown, "direction": message.direction.name.lower()}
        return fields if message.bridge is None else {**fields, "bridge": message.bridge}
    worker = getattr(message, "worker", None)  # of BusAddWorkerMessage: an object of this process
    if isinstance(worker, theirs.BaseWorker):
        return {"worker": worker.name}
    fields = to_wire(message, "", None, packed=False).values
    fields.pop("made", None)
    return fields


def _sizes(frame: Any) -> dict[str, int | str]:
    """What tells a frame's size: the bytes of its data, the characters of its text."""
    for name in ("audio", "image", "text"):
        value = getattr(frame, name, None)
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": len(value)}
        if isinstance(value, str):
            return {"characters": len(value)}
    return {}
