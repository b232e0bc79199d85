"""Values of unquoted YAML text, by the core schema of YAML 1.2: ``no`` is the word no."""

import math
import re
from typing import TypeAlias

Plain: TypeAlias = str | int | float | bool | None

_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(["null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
}
# Words of YAML 1.1; only a key that expects true or false takes them as such.
_OLD_WORDS = {"yes": True, "on": True, "no": False, "off": False}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 400  # Python refuses thousands; no number in a topology needs them


def plain_value(text: str) -> Plain:
    """The value of a scalar written without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    number = _number(text) if len(text) <= _MAX_DIGITS else None
    return text if number is None else number


def _number(text: str) -> float | None:
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    return None


def plain_bool(text: str) -> bool | None:
    """The value of a text where true or false is expected; None for neither."""
    value = plain_value(text)
    return value if isinstance(value, bool) else _OLD_WORDS.get(text.lower())


def kind_of_value(value: Plain) -> str:
    """The kind of a value, in the words of a problem."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "text" if isinstance(value, str) else "a number"


def text_problem(text: str) -> str | None:
    """The reason why a text can be no argument, path or variable of a process, or None."""
    if "\0" in text:
        return "a NUL character is not allowed"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a surrogate pair is not allowed"
    return None


def number_problem(value: Plain) -> str | None:
    """The reason why a number would not reach a worker unchanged, or None."""
    if isinstance(value, float) and not math.isfinite(value):
        return "infinities and NaN cannot be passed to a worker"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "a whole number must fit in 64 bits (quote it to pass it as text)"
    return None
