"""The stop ladder: ask over the bus, then SIGTERM, then SIGKILL, each rung with a deadline."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

import msgspec

from pbus.process.spawn import Child

_POLL_S = 0.02  # nothing in POSIX tells when a process group became empty

logger = logging.getLogger(__name__)


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """How long each rung may take.

    Attributes:
        ask_s: To finish what is queued after the bus message.
        term_s: To end after SIGTERM.
        kill_s: For the kernel to carry out SIGKILL.
    """

    ask_s: float = 5.0
    term_s: float = 3.0
    kill_s: float = 5.0


async def take_down(
    child: Child,
    ask: Callable[[], Awaitable[bool]] | None,
    hurry: asyncio.Event,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
) -> bool:
    """End a child and its whole group, gently first.

    Args:
        child: Whom to end.
        ask: Sends the bus message and says whether that worked; None leaves the rung out.
        hurry: Once set, the group is killed at once.
        deadlines: Patience, a rung.

    Returns:
        Whether the group is empty.
    """
    if ask is not None and not hurry.is_set() and await ask():
        await _is_gone_within(child, deadlines.ask_s, hurry)
    return await clear_group(child, hurry, deadlines)


async def clear_group(
    child: Child,
    hurry: asyncio.Event,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
) -> bool:
    """End what is left of a child's group by signals; its leader may have exited before."""
    if child.is_gone:
        return True
    if not hurry.is_set():
        child.send_signal(signal.SIGTERM)
        if await _is_gone_within(child, deadlines.term_s, hurry):
            return True
    child.send_signal(signal.SIGKILL)
    if await _is_gone_within(child, deadlines.kill_s, None):
        return True
    logger.error("process group %d survives SIGKILL for %g s", child.pid, deadlines.kill_s)
    return False


async def _is_gone_within(child: Child, timeout_s: float, hurry: asyncio.Event | None) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not child.is_gone:
        if loop.time() >= deadline or (hurry is not None and hurry.is_set()):
            return False
        await asyncio.sleep(_POLL_S)
    return True
