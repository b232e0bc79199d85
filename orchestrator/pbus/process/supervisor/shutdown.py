"""The stop ladder: ask over the bus, then SIGTERM, then SIGKILL, each rung with a deadline."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

import msgspec

from pbus.process.system import groups
from pbus.process.system.spawn import Child

_POLL_S = 0.02  # nothing in POSIX tells when a process group became empty
_FAREWELL_S = 1.0

logger = logging.getLogger(__name__)


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """How long each rung may take.

    Attributes:
        ask_s: To finish what is queued after the bus message, where the user says nothing.
        term_s: To end after SIGTERM.
        kill_s: For the kernel to carry out SIGKILL.
    """

    ask_s: float = 30.0
    term_s: float = 3.0
    kill_s: float = 5.0


async def terminate(
    child: Child,
    ask: Callable[[], Awaitable[bool]] | None,
    hurry: asyncio.Event,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    *,
    given_s: Callable[[], float | None] = lambda: None,
) -> bool:
    """End a child and its whole group, gently first.

    Args:
        child: Whom to end.
        ask: Sends the bus message and says whether that worked; None leaves the rung out.
        hurry: Once set, the group is killed at once.
        deadlines: Patience, a rung.
        given_s: The seconds from now that the user gives it to finish by itself; asked again and
            again, since a later order may change them. None: as in `deadlines`.

    Returns:
        Whether the group is empty.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()

    def left_s(usual_s: float) -> float:
        given = given_s()
        return began + (usual_s if given is None else given) - loop.time()

    if ask is None:  # its first word is SIGTERM
        return await _end_group(child, hurry, deadlines, lambda: left_s(deadlines.term_s))
    if not hurry.is_set() and await ask():
        # A worker whose time is up ends its jobs by itself, and tells who asked for them.
        await _is_gone(child, hurry, lambda: left_s(deadlines.ask_s) + _FAREWELL_S)
    return await terminate_group(child, hurry, deadlines)


async def terminate_group(
    child: Child,
    hurry: asyncio.Event,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
) -> bool:
    """End what is left of a child's group by signals; its leader may have exited before."""
    return await _end_group(child, hurry, deadlines, _countdown(deadlines.term_s))


async def _end_group(
    child: Child, hurry: asyncio.Event, deadlines: Deadlines, term_left_s: Callable[[], float]
) -> bool:
    if child.is_gone:
        return True
    if not hurry.is_set():
        is_permitted = child.send_signal(signal.SIGTERM)
        if is_permitted and await _is_gone(child, hurry, term_left_s):
            return True
    is_permitted = child.send_signal(signal.SIGKILL)
    if await _is_gone(child, None, _countdown(deadlines.kill_s if is_permitted else 0.0)):
        return True
    logger.error("process group %d does not end by SIGKILL", child.pid)
    return False


def describe_survivors(child: Child) -> str:
    """What to say of a child whose group was not to be cleared."""
    left = groups.describe_group(child.pid)
    return f"cannot be ended: {left} may not be signalled, or does not react"


def _countdown(seconds: float) -> Callable[[], float]:
    """Tells how much is left of so many seconds from now."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + seconds
    return lambda: ends_at - loop.time()


async def _is_gone(child: Child, hurry: asyncio.Event | None, left_s: Callable[[], float]) -> bool:
    while not child.is_gone:
        if left_s() <= 0 or (hurry is not None and hurry.is_set()):
            return False
        await asyncio.sleep(_POLL_S)
    return True
