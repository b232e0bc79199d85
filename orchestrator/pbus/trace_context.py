"""Trace ids: messages that were sent while another was handled belong to its trace.

The form is that of W3C Trace Context: version, trace id, parent span id, flags. A message that was sent
outside of handlers begins a trace and carries nothing: its trace id is made of its own id, so that it
costs nothing. The parent span id is that of the message whose handler sent this one.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

from pbus.ids import random_digits

TRACEPARENT_VARIABLE = "TRACEPARENT"
MAX_LENGTH = 128  # of what is read; a later version of the form may be longer than ours
_TRACE_DIGITS = 32
_TRACE_FROM = len("00-")
_SPAN_DIGITS = 16
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)
_USUAL_LENGTH = len("00--") + _TRACE_DIGITS + _SPAN_DIGITS + len("-01")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


class Traced(Protocol):
    """A message, as far as traces are concerned."""

    @property
    def id(self) -> str:
        """Unique."""
        ...

    @property
    def traceparent(self) -> str | None:
        """As it was sent, unchecked; None in a message that begins a trace."""
        ...


# A message, or a traceparent that is passed on as it is.
Cause = Traced | str

_cause: ContextVar[Cause | None] = ContextVar("pbus_cause", default=None)

# Returns the cause that was given to this context, whatever is handled in it; None where there is none.
given_cause = _cause.get
# Gives this context a cause.
give_cause = _cause.set


def trace_id_of(message: Traced) -> str:
    """The trace of a message: 32 hex digits, whatever it carries."""
    found = _parse(message.traceparent)
    return _digest(message)[:_TRACE_DIGITS] if found is None else found[1]


def traceparent_after(cause: Cause) -> str:
    """The traceparent of a message that is sent because of another."""
    if isinstance(cause, str):
        return cause
    digest, found = _digest(cause), _parse(cause.traceparent)
    trace_id = digest[:_TRACE_DIGITS] if found is None else found[1]
    return f"00-{trace_id}-{digest[_TRACE_DIGITS:]}-01"


def parent_span_id(message: Traced) -> str | None:
    """The span of the message that this one was sent because of; None where it begins a trace."""
    found = _parse(message.traceparent)
    return None if found is None else found[2]


def span_id_of(message: Traced) -> str:
    """The span of a message: that of its sending and handling, 16 hex digits."""
    return _digest(message)[_TRACE_DIGITS:]


def root_traceparent() -> str:
    """The traceparent of messages that belong to a new trace."""
    digits = random_digits(_TRACE_DIGITS + _SPAN_DIGITS)
    return f"00-{digits[:_TRACE_DIGITS]}-{digits[_TRACE_DIGITS:]}-01"


def is_trace_id(text: str) -> bool:
    """Whether a text has the form of a trace id."""
    return _TRACE_ID.fullmatch(text) is not None


def is_traceparent(text: str) -> bool:
    """Whether a text has the form of a traceparent."""
    return _parse(text) is not None


@contextmanager
def in_trace(traceparent: str | None = None) -> Iterator[str]:
    """Give all that is sent in a block one trace, outside of handlers or within.

    Args:
        traceparent: Of the trace to continue, say from a header of HTTP; None, and what is no
            traceparent, begins a trace.

    Returns:
        The trace id.
    """
    found = _parse(traceparent)
    cause = root_traceparent() if traceparent is None or found is None else traceparent
    token = _cause.set(cause)
    try:
        yield cause[_TRACE_FROM : _TRACE_FROM + _TRACE_DIGITS]
    finally:
        _cause.reset(token)


@contextmanager
def in_trace_of(environ: Mapping[str, str]) -> Iterator[None]:
    """Continue, in a block, the trace that a parent process has in TRACEPARENT, if there is one."""
    found = environ.get(TRACEPARENT_VARIABLE, "")
    with in_trace(found) if is_traceparent(found) else nullcontext():
        yield


def _parse(traceparent: str | None) -> re.Match[str] | None:
    """Check what was read: what is no traceparent counts as none, as W3C has it."""
    if not traceparent or len(traceparent) > MAX_LENGTH:
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    is_longer = found is not None and len(traceparent) > _USUAL_LENGTH
    return None if is_longer and traceparent.startswith("00") else found


def _digest(message: Traced) -> str:
    size = (_TRACE_DIGITS + _SPAN_DIGITS) // 2
    return hashlib.blake2b(message.id.encode(errors="replace"), digest_size=size).hexdigest()
