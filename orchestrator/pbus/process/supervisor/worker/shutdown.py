"""Shutdown of one process group: a bus message, then SIGTERM, then SIGKILL, each with a deadline."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

import msgspec

from pbus.process.system import groups
from pbus.process.system.spawn import Child
from pbus.topology.policy.policies import StopSpec

_POLL_S = 0.02  # POSIX has no event for a process group that became empty
_REPORT_S = 1.0  # a worker whose time is up ends its jobs itself, and answers their requesters
_APART_S = 0.1  # between two signals, so that a process sees both

logger = logging.getLogger(__name__)


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds for each step.

    Attributes:
        ask_s: To finish queued messages after the bus message, where the user gives no time.
        term_s: To end after SIGTERM.
        kill_s: For the kernel to carry out SIGKILL.
    """

    ask_s: float = 30.0
    term_s: float = 3.0
    kill_s: float = 5.0


class Signals(msgspec.Struct, frozen=True):
    """The steps of an end by signals.

    Attributes:
        first: Sent before SIGKILL.
        before_kill: Awaited before SIGKILL, unless it is to be at once.
    """

    first: signal.Signals = signal.SIGTERM
    before_kill: Callable[[], Awaitable[object]] | None = None


async def terminate(
    child: Child,
    request_end: Callable[[], Awaitable[bool]] | None,
    kill_now: asyncio.Event,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    *,
    job_time_s: Callable[[], float | None] = lambda: None,
    signals: Signals = Signals(),  # noqa: B008 - frozen
) -> bool:
    """End a child and its whole group.

    Args:
        child: The process.
        request_end: Sends the bus message and returns whether that worked; if not, the first signal
            stands for it. The signal is sent twice then: a runner drains at the first, and
            cancels at the second. None to start with the signal.
        kill_now: Once set, the group is killed at once.
        deadlines: Seconds for each step.
        job_time_s: Returns the user's time for running jobs, in seconds from the call of this
            function; read repeatedly, since a later command may change it. None: as in `deadlines`.
        signals: See there.

    Returns:
        Whether the group is empty.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()

    def left_s(default_s: float) -> float:
        given_s = job_time_s()
        return began + (default_s if given_s is None else given_s) - loop.time()

    if request_end is None:
        term_left_s = lambda: left_s(deadlines.term_s)  # noqa: E731 - read repeatedly
        return await _end_group(child, kill_now, deadlines, term_left_s, signals)
    if not kill_now.is_set() and await request_end():
        is_gone = await _is_gone(child, kill_now, lambda: left_s(deadlines.ask_s) + _REPORT_S)
        # The message may lie behind a handler that never ends; the time for an orderly end is over.
        if not is_gone and not kill_now.is_set() and child.send_signal(signals.first):
            await _is_gone(child, kill_now, _countdown(_APART_S))
    elif not kill_now.is_set() and child.send_signal(signals.first):  # stands for the message
        await _is_gone(child, kill_now, _countdown(deadlines.term_s))
    return await _end_group(child, kill_now, deadlines, _countdown(deadlines.term_s), signals)


def deadlines_of(spec: StopSpec, *, is_asked: bool) -> Deadlines:
    """Return the seconds for each step that a worker's `stop` gives.

    Args:
        spec: The worker's.
        is_asked: It is asked by a message first, which is what the grace is for then.
    """
    usual = Deadlines()
    if spec.grace_s is None:
        return usual
    if is_asked:
        return Deadlines(ask_s=spec.grace_s, term_s=min(usual.term_s, spec.grace_s))
    return Deadlines(term_s=spec.grace_s)


async def terminate_group(
    child: Child,
    kill_now: asyncio.Event,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
) -> bool:
    """End the rest of a child's group by signals; its leader may have exited before.

    Returns:
        Whether the group is empty.
    """
    return await _end_group(child, kill_now, deadlines, _countdown(deadlines.term_s))


async def _end_group(
    child: Child,
    kill_now: asyncio.Event,
    deadlines: Deadlines,
    term_left_s: Callable[[], float],
    signals: Signals = Signals(),  # noqa: B008 - frozen
) -> bool:
    if child.is_gone:
        return True
    if not kill_now.is_set():
        is_permitted = child.send_signal(signals.first)
        if is_permitted and await _is_gone(child, kill_now, term_left_s):
            return True
    if signals.before_kill is not None and not kill_now.is_set():
        await signals.before_kill()
    is_permitted = child.send_signal(signal.SIGKILL)
    if await _is_gone(child, None, _countdown(deadlines.kill_s if is_permitted else 0.0)):
        return True
    logger.error("process group %d does not end by SIGKILL", child.pid)
    return False


def describe_survivors(child: Child) -> str:
    """Describe a group that could not be ended."""
    left = groups.describe_group(child.pid)
    return f"cannot be ended: {left} may not be signalled, or does not react"


def _countdown(seconds: float) -> Callable[[], float]:
    """Return a function that returns the seconds left."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + seconds
    return lambda: ends_at - loop.time()


async def _is_gone(
    child: Child, kill_now: asyncio.Event | None, left_s: Callable[[], float]
) -> bool:
    while not child.is_gone:
        if left_s() <= 0 or (kill_now is not None and kill_now.is_set()):
            return False
        await asyncio.sleep(_POLL_S)
    return True
