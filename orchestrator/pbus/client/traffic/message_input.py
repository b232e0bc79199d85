"""Messages made from the name of a type and JSON fields, checked against the catalogue."""

import difflib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from pbus.bus.base import WorkerBus
from pbus.codec import Header, decode_message, encode_raw
from pbus.errors import MessageDecodeError, MessageInputError, UnknownTypeError
from pbus.ids import new_id
from pbus.messages import BusMessage, Category
from pbus.routing_keys import key_problem

_HEADER_FIELDS = ("type", "source", "target", "id", "time", "key", "traceparent")


@dataclass(frozen=True)
class MessageInput:
    """A message without its addresses.

    Attributes:
        type: The name of a catalogue type, or of one that only the receiver knows.
        fields: The type's own fields, JSON values.
        key: Chooses the replica that it goes to; None for any.
    """

    type: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None

    @classmethod
    def text(cls, text: str, key: str | None = None) -> Self:
        """A text frame."""
        return cls("BusFrameMessage", {"frame": {"type": "TextFrame", "text": text}}, key)

    @property
    def category(self) -> Category:
        """The category of the type; data where the type is not known here."""
        known = BusMessage.catalogue.get(self.type)
        category: Category = "data" if known is None else known.category
        return category

    @property
    def is_known(self) -> bool:
        """Whether this process can tell that a receiver will decode it."""
        return self._build("cli", None, sys.maxsize) is not None

    def check(self) -> Self:
        """Check its key, and that a catalogue type takes these fields; other types pass.

        Returns:
            This value.

        Raises:
            MessageInputError: It does not; names the field.
        """
        problem = None if self.key is None else key_problem(self.key)
        if problem is not None:
            raise MessageInputError(self.type, problem, field="key")
        cls = BusMessage.catalogue.get(self.type)
        for name in self.fields:
            if name in _HEADER_FIELDS:
                raise MessageInputError(self.type, _set_by_pbus(name), field=name)
            if cls is not None:
                _check_field(name, self.type, cls)
        if cls is not None:
            self._build("cli", None, sys.maxsize)
        return self

    async def send(
        self, bus: WorkerBus, *, source: str, target: str | None, urgent: bool = False
    ) -> bool:
        """Send it, in the system lane if urgent; returns as WorkerBus.send().

        Raises:
            MessageInputError: The type does not take these fields.
            MessageTooLargeError: The bus does not carry as much.
            BusFullError: The receiver makes no room.
        """
        message = self._build(source, target, bus.max_message_bytes)
        if message is None or urgent:
            fields = dict(self.fields)
            return await bus.send_raw(
                self.type, target, fields, source=source, urgent=urgent, key=self.key
            )
        return await bus.send(message)

    def _build(self, source: str, target: str | None, limit: int) -> BusMessage | None:
        """The message, or None where only the receiver knows its type (or its frame's)."""
        header = Header(
            type=self.type,
            source=source,
            target=target,
            id=new_id(),
            time=time.time(),
            key=self.key,
        )
        line = encode_raw(header, dict(self.fields), limit=limit)
        try:
            return decode_message(line)
        except UnknownTypeError:
            return None
        except MessageDecodeError as error:
            reason = str(error.__cause__) if error.__cause__ is not None else error.message
            raise MessageInputError(self.type, f"{self.type}: {reason}") from None


def _set_by_pbus(name: str) -> str:
    if name == "key":
        return "field 'key' chooses the replica, and is given beside the data (key=, --key)"
    return f"field {name!r} is set by pbus"


def _check_field(name: str, type_name: str, cls: type[BusMessage]) -> None:
    known = [field.encode_name for field in msgspec.structs.fields(cls)]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    own = ", ".join(sorted(set(known) - set(_HEADER_FIELDS))) or "none"
    advice = f"did you mean {near[0]!r}?" if near else f"it has: {own}"
    raise MessageInputError(type_name, f"{type_name} has no field {name!r}; {advice}", field=name)
