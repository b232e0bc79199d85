"""Messages of types that this process does not know, as they are received and sent."""

from typing import Any, ClassVar

from pbus.messages.message_base import BusMessage, Category, Lane
from pbus.structs import own_fields


class BusOpaqueMessage(BusMessage):
    """A message of a type that this process does not know.

    Only subscribers with `takes_opaque` receive it; the others refuse the type. When it is sent, its
    receivers find the type among the classes that they have imported.

    Attributes:
        type_name: The name of the type.
        data: Its own fields, undecoded: an object of JSON, or a map of MessagePack.
    """

    is_stored: ClassVar[bool] = True
    is_opaque: ClassVar[bool] = True

    type_name: str
    data: bytes = b"{}"

    def fields(self) -> dict[str, Any]:
        """Its own fields, decoded; bytes that travelled in JSON are text in base64.

        Raises:
            MessageDecodeError: The data is no object.
        """
        return own_fields(self.data, self.type_name)

    def __str__(self) -> str:
        return f"{self.type_name} {self.id} ({self.source} -> {self.target or 'everyone'})"


class BusOpaqueSystemMessage(BusOpaqueMessage):
    """An unknown message that overtakes queued data messages."""

    category: ClassVar[Category] = "system"
    lane: ClassVar[Lane] = Lane.SYSTEM
    is_stored: ClassVar[bool] = False


for _cls in (BusOpaqueMessage, BusOpaqueSystemMessage):  # their names mean no type on the wire
    BusMessage.catalogue.discard(_cls)
