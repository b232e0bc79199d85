"""Values of Pipecat's messages as JSON, and back; nothing is imported that a message names.

What JSON has no form for is an object of two keys, its type and its data, as Pipecat's own serializer
writes it. Its class is looked up among the modules that this process has imported.
"""

import asyncio
import base64
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import math
import sys
import uuid
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from pbus.compat.pipecat.theirs import ADAPTERS
from pbus.errors import MessageEncodeError

_OF_LOOPS = (asyncio.Event, asyncio.Lock, asyncio.Semaphore, asyncio.Queue, asyncio.Future)
TYPE, DATA = "__type__", "__data__"
_INTEGERS = range(-(1 << 63), 1 << 64)  # that the wire carries


class Unencodable(Exception):  # noqa: N818 - becomes a MessageEncodeError
    """A value that cannot travel; `path` grows on the way out."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str] = []


def encode_field(value: Any, type_name: str, field: str) -> Any:
    """The JSON of one field of a message.

    Args:
        value: The field's.
        type_name: Of the message, for the error.
        field: Its name, for the error.

    Raises:
        MessageEncodeError: The value, or one inside it, cannot travel; it names the place.
    """
    try:
        return encode(value)
    except (Unencodable, RecursionError) as error:
        raise field_error(error, type_name, field) from error


def field_error(
    error: "Unencodable | RecursionError", type_name: str, field: str
) -> MessageEncodeError:
    """The error of a message for one of `encode` in a field of it."""
    if isinstance(error, RecursionError):
        return MessageEncodeError(type_name, field, "it is nested too deeply")
    return MessageEncodeError(type_name, field + "".join(reversed(error.path)), error.problem)


def encode(value: Any) -> Any:
    """The JSON of a value; see `encode_field`.

    Raises:
        Unencodable: It, or one inside it, cannot travel; also RecursionError.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    encoder = _ENCODERS.get(kind)
    return _encode_object(value) if encoder is None else encoder(value)


def _encode_int(value: int) -> Any:
    return value if value in _INTEGERS else _tagged("int", str(value))


def _encode_float(value: float) -> Any:
    return value if math.isfinite(value) else _tagged("float", str(value))


def _encode_items(values: Any) -> list[Any]:
    encoded = []
    for index, value in enumerate(values):
        try:
            encoded.append(encode(value))
        except Unencodable as error:
            error.path.append(f"[{index}]")
            raise
    return encoded


def _encode_dict(values: dict[Any, Any]) -> Any:
    if not all(type(key) is str for key in values) or (TYPE in values and DATA in values):
        return _tagged("dict", _encode_items([list(pair) for pair in values.items()]))
    return encode_fields(values)


def encode_fields(values: dict[str, Any]) -> dict[str, Any]:
    """The JSON of values by name."""
    encoded = {}
    for key, value in values.items():
        try:
            encoded[key] = encode(value)
        except Unencodable as error:
            error.path.append(f".{key}")
            raise
    return encoded


def _tagged(type_name: str, data: Any) -> dict[str, Any]:
    return {TYPE: type_name, DATA: data}


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    int: _encode_int,
    float: _encode_float,
    list: _encode_items,
    dict: _encode_dict,
    bytes: lambda value: _tagged("bytes", base64.b64encode(value).decode()),
    bytearray: lambda value: _tagged("bytearray", base64.b64encode(value).decode()),
    tuple: lambda value: _tagged("tuple", _encode_items(value)),
    set: lambda value: _tagged("set", _encode_items(value)),
    frozenset: lambda value: _tagged("frozenset", _encode_items(value)),
    dt.datetime: lambda value: _tagged("datetime", value.isoformat()),
    dt.date: lambda value: _tagged("date", value.isoformat()),
    dt.time: lambda value: _tagged("time", value.isoformat()),
    dt.timedelta: lambda value: _tagged(
        "timedelta", [value.days, value.seconds, value.microseconds]
    ),
    uuid.UUID: lambda value: _tagged("UUID", str(value)),
    decimal.Decimal: lambda value: _tagged("Decimal", str(value)),
}
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "dict": lambda data: {_hashable(key): value for key, value in _decode_items(data)},
    "bytes": base64.b64decode,
    "bytearray": lambda data: bytearray(base64.b64decode(data)),
    "tuple": lambda data: tuple(_decode_items(data)),
    "set": lambda data: set(_decode_items(data)),
    "frozenset": lambda data: frozenset(_decode_items(data)),
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "timedelta": lambda data: dt.timedelta(*data),
    "UUID": uuid.UUID,
    "Decimal": decimal.Decimal,
}


_BASES: tuple[Any, ...] = (str, int, float, dict, list)


def _encode_object(value: Any) -> Any:
    """The JSON of an object that has a class of its own."""
    cls = type(value)
    if isinstance(value, enum.Enum):
        return _tagged(_place_of(cls), value.name)
    adapter = _adapter_of(cls)
    if adapter is not None:
        return _tagged(_place_of(cls), adapter.serialize(value, encode))
    if isinstance(value, BaseModel):
        fields = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        return _tagged(_place_of(cls), encode_fields(fields))
    if dataclasses.is_dataclass(cls):
        return _tagged(_place_of(cls), dataclass_fields(value))
    for base in _BASES:
        if isinstance(value, base):  # of a class of its own: as plain data
            return encode(base(value))
    raise Unencodable(f"a {cls.__name__} would not arrive as one")


def dataclass_fields(value: Any) -> dict[str, Any]:
    """The JSON of a dataclass' fields; None and what is of the sender's process alone are left out."""
    fields = {}
    for field in dataclasses.fields(value):
        found = getattr(value, field.name, None)
        if not is_of_process(found):
            fields[field.name] = found
    return encode_fields(fields)


def is_plain(value: Any, kind: type) -> bool:
    """Whether a value of a type is its own JSON, as most fields of frames are."""
    if kind is str or kind is bool:
        return True
    return value in _INTEGERS if kind is int else kind is dict and not value


def is_of_process(value: Any) -> bool:
    """Whether a field is left out, as by Pipecat's serializer: None, functions, what tasks wait for."""
    return value is None or callable(value) or isinstance(value, _OF_LOOPS)


def _place_of(cls: type) -> str:
    if "<locals>" in cls.__qualname__:
        raise Unencodable(f"the class {cls.__name__} of a function cannot be found by others")
    return f"{cls.__module__}.{cls.__qualname__}"


def _adapter_of(cls: type) -> Any:
    return next((ADAPTERS[base] for base in cls.__mro__ if base in ADAPTERS), None)


def decode(value: Any) -> Any:
    """The value of JSON; an object of a class that is not found here stays the two keys.

    Raises:
        ValueError: What is tagged has data that its type cannot have; also other errors of classes.
    """
    kind = type(value)
    if kind is list:
        return _decode_items(value)
    if kind is not dict:
        return value
    if len(value) == 2 and TYPE in value and DATA in value:  # noqa: PLR2004 - the two
        return _decode_tagged(value, value[TYPE], value[DATA])
    return {key: decode(inner) for key, inner in value.items()}


def _decode_items(values: list[Any]) -> list[Any]:
    return [decode(value) for value in values]


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def _decode_tagged(value: dict[str, Any], type_name: Any, data: Any) -> Any:
    decoder = _DECODERS.get(type_name)
    if decoder is not None:
        return decoder(data)
    cls = find_class(type_name)
    if cls is None:
        return value
    if issubclass(cls, enum.Enum):
        return cls[data]
    adapter = _adapter_of(cls)
    if adapter is not None:
        return adapter.deserialize(data, decode, target_type=cls)
    fields = {key: decode(inner) for key, inner in data.items()}
    return cls.model_validate(fields) if issubclass(cls, BaseModel) else build(cls, fields)


def find_class(type_name: Any) -> Any:
    """The class of a tag, if its module is imported here and it is of a kind that travels."""
    if not isinstance(type_name, str):
        return None
    module, _, name = type_name.rpartition(".")
    while module and module not in sys.modules:
        module, _, outer = module.rpartition(".")
        name = f"{outer}.{name}"
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = None if found is None else vars(found).get(part)
    travels = isinstance(found, type) and (
        issubclass(found, (enum.Enum, BaseModel))
        or dataclasses.is_dataclass(found)
        or _adapter_of(found) is not None
    )
    return found if travels else None


def build(cls: type, fields: dict[str, Any]) -> Any:
    """An instance of a dataclass; a field without default that is missing is None."""
    names, required = _init_fields(cls)
    given: dict[str, Any] = {}
    later: dict[str, Any] = {}
    for name, value in fields.items():
        (given if name in names else later)[name] = value
    if not required <= given.keys():
        given |= dict.fromkeys(required - given.keys())
    made = cls(**given)
    for name, value in later.items():
        setattr(made, name, value)
    return made


@functools.cache
def _init_fields(cls: Any) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a dataclass is made with, and those of them without a default."""
    fields = [field for field in dataclasses.fields(cls) if field.init]
    missing = dataclasses.MISSING
    required = [field.name for field in fields if field.default is field.default_factory is missing]
    return frozenset(field.name for field in fields), frozenset(required)
