"""JSON of values with file names in them, which need not be text: their bytes are escaped."""

import json
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """A value as JSON; bytes that are no text come as halves of a surrogate pair."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value)).encode()


def decode(data: bytes, kind: type[T]) -> T:
    """A value from what encode() made.

    Raises:
        msgspec.MsgspecError: It is none.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # it does not take the halves
        try:
            plain = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise msgspec.DecodeError(str(error)) from None
        return msgspec.convert(plain, kind)
