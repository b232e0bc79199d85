"""The base of all errors, and texts of any errors."""

from __future__ import annotations

_LONGEST_TEXT = 2_000


class PbusError(Exception):
    """The base of all errors that pbus raises.

    Attributes:
        message: One sentence without a full stop: what happened, and where.
        hint: What to do about it; None when there is nothing to do.
    """

    def __init_subclass__(cls) -> None:
        """Have tracebacks show the public name."""
        super().__init_subclass__()
        if cls.__module__.startswith("pbus.errors."):
            cls.__module__ = "pbus.errors"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}: {hint}")
        self.message = message
        self.hint = hint


def text_of(error: BaseException) -> str:
    """The text of any error, fit to be logged and sent: short, and always text."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - __str__ of a user's class
        text = "its text cannot be made"
    text = sendable(text or type(error).__name__)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} …"


def sendable(text: str) -> str:
    """A text without lone surrogates, which file names may have and no message can carry."""
    return text.encode(errors="backslashreplace").decode()
