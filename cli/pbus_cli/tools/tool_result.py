"""From values of any origin to the text of a tool's result: sanitised, bounded, JSON.

Log lines and messages are written by any program that reaches the bus. What a terminal would act on,
and what a person would not see, is escaped, so that it is seen by whatever reads the result.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from pbus_cli.terminal.clean import clean, without_sequences

MAX_BYTES: Final = 64 * 1024  # of a result
MAX_TEXT: Final = 2_000  # characters of one text in it
_BEGIN: Final = MAX_BYTES // 2 - 200  # bytes; its quotes are escaped again
_MAX_DEPTH: Final = 24
_MAX_ITEMS: Final = 1_000  # of a list or an object


def sanitised(value: Any, depth: int = 0) -> Any:
    """A value in JSON's types, its texts cleaned and cut, its depth and its lists bounded."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return _object(value, depth)
    if isinstance(value, list | tuple):
        return _list(value, depth)
    return sanitised(msgspec.to_builtins(value), depth)


def result_text(value: Mapping[str, Any], listed: str | None = None) -> str:
    """The JSON of a result, at most MAX_BYTES.

    Args:
        value: The result.
        listed: The key of a list in it whose first items are left out where it is too long; the
            newest stand last.
    """
    shown = dict(sanitised(value))
    text = _encoded(shown)
    if _size(text) <= MAX_BYTES:
        return text
    if listed is not None:
        text = _encoded(_shortened(shown, listed))
    if _size(text) <= MAX_BYTES:
        return text
    begin = text.encode()[:_BEGIN].decode(errors="ignore")
    return _encoded({"too_long": True, "bytes": _size(text), "begin": begin})


def _shortened(shown: dict[str, Any], listed: str) -> dict[str, Any]:
    """Leave out the first items of a list, and say how many."""
    items = shown[listed]
    room = MAX_BYTES - _size(_encoded({**shown, listed: [], "left_out": len(items)}))
    kept: list[Any] = []
    for item in reversed(items):
        room -= _size(_encoded(item)) + len(",")
        if room < 0:
            break
        kept.append(item)
    return {**shown, listed: kept[::-1], "left_out": len(items) - len(kept)}


def _object(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    items = list(value.items())[: _room(depth)]
    shown = {_text(str(key)): sanitised(item, depth + 1) for key, item in items}
    left_out = len(value) - len(items)
    return {**shown, "...": f"({left_out:,} more)"} if left_out else shown


def _list(value: Sequence[Any], depth: int) -> list[Any]:
    shown = [sanitised(item, depth + 1) for item in value[: _room(depth)]]
    left_out = len(value) - len(shown)
    return [*shown, f"({left_out:,} more)"] if left_out else shown


def _room(depth: int) -> int:
    """Return how many items are shown at a depth."""
    return _MAX_ITEMS if depth < _MAX_DEPTH else 0


def _text(text: str) -> str:
    """A text without sequences of a terminal, hidden characters escaped, and cut."""
    left_out = len(text) - MAX_TEXT
    whole = text[:MAX_TEXT].encode(errors="backslashreplace").decode()  # halves of characters
    shown = clean(without_sequences(whole))
    return f"{shown}… ({left_out:,} more characters)" if left_out > 0 else shown


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _size(text: str) -> int:
    return len(text.encode())
