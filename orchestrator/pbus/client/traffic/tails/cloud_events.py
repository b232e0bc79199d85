"""Messages in the form of CloudEvents 1.0, for programs that read events of any origin."""

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from pbus.client.traffic.message_tail import TailMessage, data_fields
from pbus.ids import new_id
from pbus.trace_context import traceparent_after

_SPEC_VERSION: Final = "1.0"
_LARGEST_INTEGER: Final = (1 << 31) - 1  # of the specification's type system


def cloud_event(message: TailMessage, project: str) -> dict[str, Any]:
    """The event of a message: required and optional attributes, extensions, data.

    Its `source` is the worker within the project, its `subject` the receiver, if it has one. What is
    not so is left out: extensions have no null.

    Args:
        message: As it passed.
        project: The project's name.
    """
    event: dict[str, Any] = {
        "specversion": _SPEC_VERSION,
        "id": _text(message.id) or new_id(),
        "source": f"/pbus/{quote(project, safe='')}/{quote(message.source, safe='')}",
        "type": f"pbus.{_text(message.type)}",
        "category": message.category,
        "traceparent": traceparent_after(message),
        "sizebytes": min(message.size_bytes, _LARGEST_INTEGER),
    }
    optional = {
        "time": _time_text(message.time),
        "subject": _text(message.target or ""),
        "partitionkey": _text(message.key or ""),
        "urgent": message.is_urgent,
        "undelivered": not message.is_reached,
        "local": message.is_local,
    }
    event |= {name: value for name, value in optional.items() if value}
    data = data_fields(message.body) if message.has_body else None
    if data is not None:
        event |= {"datacontenttype": "application/json", "data": data}
    return event


def _text(text: str) -> str:
    """Text without the characters that attributes must not have."""
    return "".join(char if char.isprintable() or char == " " else "\ufffd" for char in text)


def _time_text(seconds: float) -> str:
    """A time in the form of RFC 3339; "" for one that has none."""
    try:
        text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return ""
    return text.replace("+00:00", "Z")
