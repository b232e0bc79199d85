"""The findings of the doctor."""

from typing import Literal

import msgspec

Status = Literal["ok", "warning", "error"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        check: The subject, a word: "broker", "python" and such.
        status: Of it; an error keeps something from working, a warning may do so later.
        text: What was found, and what it means; never a secret.
        hint: What to do; None where there is nothing to do.
    """

    check: str
    status: Status
    text: str
    hint: str | None = None


def ok(check: str, text: str) -> Finding:
    """A subject that is as it should be."""
    return Finding(check=check, status="ok", text=text)


def warning(check: str, text: str, hint: str) -> Finding:
    """A subject that may make trouble."""
    return Finding(check=check, status="warning", text=text, hint=hint)


def error(check: str, text: str, hint: str | None) -> Finding:
    """A subject that keeps something from working."""
    return Finding(check=check, status="error", text=text, hint=hint)
