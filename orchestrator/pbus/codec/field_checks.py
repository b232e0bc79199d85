"""Checks of field values that the wire would change or drop."""

import math
from collections.abc import Collection
from typing import Any

import msgspec

from pbus.codec.envelope import json_encoder
from pbus.codec.wire_spec import WireSpec, spec_of
from pbus.errors import MessageEncodeError
from pbus.frames import Frame
from pbus.messages import BusMessage
from pbus.routing_keys import key_problem

_Types = tuple[type, ...]
_SIMPLE: _Types = (str, int)
_FLAT = frozenset({str, int, bool, type(None)})
_ONLY_STR = frozenset({str})
_MANY = 16  # values: they are first looked at all at once
_isfinite = math.isfinite
_MAX_DEPTH = 200  # deeper JSON is an accident; msgspec and the C stack agree up to here


def check_key(key: object, type_name: str) -> None:
    """Check the key of a message.

    Raises:
        MessageEncodeError: It is none.
    """
    problem = key_problem(key)
    if problem is not None:
        raise MessageEncodeError(type_name, "key", problem)


def check_fields(message: BusMessage, spec: WireSpec) -> None:
    """Check the free fields and the frames of a message.

    Raises:
        MessageEncodeError: A value would not arrive unchanged.
    """
    for name in spec.free_fields:
        value = getattr(message, name)
        if not _is_plain(value, 0):
            _check_slowly(value, type(message).__name__, name, 0, _SIMPLE)
    for name in spec.frame_fields:
        _check_frame(getattr(message, name), type(message).__name__, name)


def _check_frame(frame: Frame | None, type_name: str, path: str) -> None:
    if frame is None:
        return
    for name in spec_of(type(frame)).free_fields:
        check_plain(getattr(frame, name), type_name, f"{path}.{name}")


def check_plain(value: Any, type_name: str, path: str, *, simple: _Types = _SIMPLE) -> None:
    """Check a value that JSON might change or drop.

    Args:
        value: Of a field without a type of its own.
        type_name: Of the message, for the error.
        path: To the value, for the error.
        simple: Types of values that are carried as they are.

    Raises:
        MessageEncodeError: The value would not arrive unchanged.
    """
    if not _is_plain(value, 0):
        _check_slowly(value, type_name, path, 0, simple)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value is surely carried unchanged; makes no paths, which cost most of a check."""
    kind = type(value)
    if kind in _FLAT:
        return True
    if kind is float:
        return _isfinite(value)
    if kind is dict:
        if not _ONLY_STR.issuperset(map(type, value)):
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return False
    return depth < _MAX_DEPTH and _are_plain(value, depth + 1)


def _are_plain(values: Collection[Any], depth: int) -> bool:
    if len(values) > _MANY and _FLAT.issuperset(map(type, values)):
        return True
    for value in values:
        kind = type(value)
        if kind is float:
            if not _isfinite(value):
                return False
        elif kind not in _FLAT and not _is_plain(value, depth):
            return False
    return True


def _check_slowly(value: Any, type_name: str, path: str, depth: int, simple: _Types) -> None:
    """Check a value part by part, with the path to each."""
    if value is None or isinstance(value, simple):
        return
    if isinstance(value, float):
        if not _isfinite(value):
            raise MessageEncodeError(type_name, path, f"{value} is no JSON number")
        return
    if depth >= _MAX_DEPTH:
        raise MessageEncodeError(type_name, path, f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        _check_dict(value, type_name, path, depth, simple)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_slowly(inner, type_name, f"{path}[{index}]", depth + 1, simple)
    else:
        raise MessageEncodeError(
            type_name,
            path,
            f"a {type(value).__name__} would not arrive as one",
            hint="convert it to text, number, list or dict, or declare a field of that type in a "
            "message class of your own",
        )


def _check_dict(
    value: dict[Any, Any], type_name: str, path: str, depth: int, simple: _Types
) -> None:
    for key, inner in value.items():
        if not isinstance(key, str):
            raise MessageEncodeError(
                type_name, path, f"key {key!r} is {type(key).__name__}, JSON keys are text"
            )
        _check_slowly(inner, type_name, f"{path}.{key}", depth + 1, simple)


def check_finite(message: BusMessage) -> None:
    """Find the non-finite number in a typed field, if a null in the JSON is one.

    Raises:
        MessageEncodeError: There is one.
    """
    for field in msgspec.structs.fields(type(message)):
        path = _non_finite(getattr(message, field.name), field.name, 0)
        if path is not None:
            raise MessageEncodeError(type(message).__name__, path, "NaN and infinity are no JSON")


def _non_finite(value: Any, path: str, depth: int) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if depth >= _MAX_DEPTH:
        return None
    found = (_non_finite(item, name, depth + 1) for name, item in _inner(value, path))
    return next((name for name in found if name), None)


def _inner(value: Any, path: str) -> list[tuple[str, Any]]:
    """The values in a container, each with its path."""
    if isinstance(value, msgspec.Struct):
        return [(f"{path}.{name}", getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, dict):
        return [(f"{path}.{key}", item) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return []


def encode_error(message: BusMessage, error: Exception) -> MessageEncodeError:
    """Make the error that names the field which cannot be encoded."""
    for field in msgspec.structs.fields(type(message)):
        try:
            json_encoder.encode(getattr(message, field.name))
        except (TypeError, ValueError, OverflowError, RecursionError) as inner:
            return MessageEncodeError(type(message).__name__, field.name, str(inner))
    return MessageEncodeError(type(message).__name__, "?", str(error))


def raw_encode_error(
    type_name: str, fields: dict[str, Any], error: Exception
) -> MessageEncodeError:
    """Make the error that names the one of these fields which cannot be encoded."""
    for name, value in fields.items():
        try:
            json_encoder.encode(value)
        except ValueError as inner:
            return MessageEncodeError(type_name, name, str(inner))
    return MessageEncodeError(type_name, "?", str(error))
