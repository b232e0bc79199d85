"""One decoder for messages of all types that were met: msgspec finds the class by the tag."""

from collections.abc import Callable
from typing import Any, Union

import msgspec

from pbus.codec.wire_spec import spec_of
from pbus.messages import BusEndWorkerMessage, BusMessage

# A decoder of one class would take messages without a type: a union of two never does.
_ALWAYS = BusEndWorkerMessage
_MOST = 256  # classes; messages of further ones are decoded by their header


class UnionDecoder:
    """Decodes JSON messages of the classes that were added; the others raise, to be decoded otherwise.

    Attributes:
        decode: Decodes a message. Raises any error where it is of another class, or wrong: only
            decoding it by its header tells which.
    """

    __slots__ = ("_classes", "decode")

    _classes: tuple[type[BusMessage], ...]
    decode: Callable[[bytes], Any]

    def __init__(self) -> None:
        self.clear()

    def add(self, cls: type[BusMessage]) -> None:
        """Decode messages of a class from now on, if it fits in: tagged by its name, no frames."""
        classes = (*self._classes, cls)
        if cls in self._classes or len(classes) > _MOST or not _fits(cls):
            return
        try:
            decode = msgspec.json.Decoder(Union[(_ALWAYS, *classes)]).decode
        except TypeError:  # each of them can be decoded, but not beside the others
            return
        self._classes, self.decode = classes, decode

    def clear(self) -> None:
        """Decode no messages: what a name stands for has changed."""
        self._classes = ()
        self.decode = _decode_none


def _decode_none(line: bytes) -> Any:
    del line
    raise msgspec.ValidationError


def _fits(cls: type[BusMessage]) -> bool:
    config = cls.__struct_config__
    is_tagged = (config.tag_field, config.tag) == ("type", cls.__name__)
    return is_tagged and not config.array_like and not spec_of(cls).frame_fields
