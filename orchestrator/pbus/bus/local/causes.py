"""The message because of which another is sent: that whose handler runs here.

Nothing is set for each message that is handled, as that would cost more than the decoding of it: readers
and holds know their message, and are asked when something is sent.
"""

import asyncio
import os
from collections.abc import Callable, Mapping

from msgspec.structs import force_setattr

from pbus.bus.local.lane_hold import CURRENT_HOLD
from pbus.bus.local.lane_reader import current_reader
from pbus.messages import BusMessage
from pbus.trace_context import (
    TRACEPARENT_VARIABLE,
    Cause,
    given_cause,
    root_traceparent,
    traceparent_after,
)

_outer: list[Callable[[], str | None]] = []  # at most one


def current_cause() -> Cause | None:
    """The cause of what is sent here; None outside of handlers, where it begins a trace."""
    given, reader = given_cause(), current_reader()
    if given is not None or reader is None:
        return given
    hold = CURRENT_HOLD.get()
    if hold is not None and hold.reader is reader:
        return hold.cause
    return reader.message if reader.task is asyncio.current_task() else None


def current_traceparent() -> str | None:
    """The traceparent of a message that is sent here; None where it begins a trace."""
    cause = current_cause()
    return None if cause is None else traceparent_after(cause)


def inherit_trace(message: BusMessage) -> None:
    """Give a message the trace of its cause, if there is one and it has none yet."""
    cause = None if message.traceparent is not None else current_cause()
    if cause is not None:
        force_setattr(message, "traceparent", traceparent_after(cause))


def new_traceparent() -> str:
    """The traceparent of messages that belong together: of the trace here, or of a new one."""
    return current_traceparent() or _outer_traceparent() or root_traceparent()


def trace_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables for a child process, with TRACEPARENT: of the trace here, or of a new one.

    Args:
        environ: The other variables.
    """
    return {**environ, TRACEPARENT_VARIABLE: new_traceparent()}


def ask_outside(find: Callable[[], str | None]) -> None:
    """Have traceparents that come from elsewhere than messages found by a function."""
    _outer[:] = [find]


def _outer_traceparent() -> str | None:
    return _outer[0]() if _outer else None
