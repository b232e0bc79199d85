"""Values of a message by their paths, for readers that want some of its fields."""

import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from pbus.client.traffic.message_tail import TailMessage, decoded_fields
from pbus.client.traffic.tails.message_pairs import MessagePair, pair_fields

_NO_VALUE: Final = object()
_INDEX: Final = re.compile("[0-9]{1,9}")
Paths: TypeAlias = Sequence[str]


class MessageValues:
    """Picks some values of each message.

    Args:
        paths: Names of the header ("source"), or paths into the message's own fields, with or without
            "data." in front ("text", "data.text", "payload.items.0"); of pairs names of these
            ("seconds", "request.source", "answer.data.text").

    Attributes:
        has_seen: Whether there was any message.
        unseen: Paths that no message had a value for.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = tuple(paths)
        self.has_seen = False
        self.unseen = set(self._paths)

    def of(self, message: TailMessage | MessagePair) -> dict[str, Any]:
        """The values by path; null where the message has none."""
        self.has_seen = True
        if isinstance(message, MessagePair):
            fields = pair_fields(message, is_decoded=True)
        else:
            fields = decoded_fields(message)
        found = {path: _value(fields, path) for path in self._paths}
        self.unseen -= {path for path, value in found.items() if value is not _NO_VALUE}
        return {path: None if value is _NO_VALUE else value for path, value in found.items()}


def _value(fields: dict[str, Any], path: str) -> Any:
    value = _within(fields, path)
    return _within(fields.get("data"), path) if value is _NO_VALUE else value


def _within(value: Any, path: str) -> Any:
    """The value at a path; a name that has dots in it is found as a whole."""
    if isinstance(value, dict) and path in value:
        return value[path]
    name, dot, rest = path.partition(".")
    if isinstance(value, dict) and name in value:
        inner = value[name]
    elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
        inner = value[int(name)]
    else:
        return _NO_VALUE
    return _within(inner, rest) if dot else inner
