"""Waiting for the first of several."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def first_of(
    *works: Awaitable[Any], timeout_s: float | None = None, cancel_s: float | None = None
) -> list["asyncio.Future[Any]"]:
    """Wait until one of several is done, cancel the others and wait for their end.

    Args:
        works: Coroutines or futures.
        timeout_s: Seconds until all are cancelled.
        cancel_s: Seconds to wait for those that are cancelled; None for as long as it takes.

    Returns:
        Their futures in the same order. Errors stay in the futures and are not logged.
    """
    futures: list[asyncio.Future[Any]] = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in futures:
            future.cancel()
        await asyncio.wait(futures, timeout=cancel_s)
        for future in futures:
            if future.done() and not future.cancelled():
                future.exception()  # retrieved, so that asyncio does not log it
    return futures


async def unless_set(event: asyncio.Event, work: Awaitable[T]) -> T | None:
    """Await work; cancel it and return None when the event is set first."""
    done, is_set = await first_of(work, event.wait())
    result: T | None = done.result() if is_set.cancelled() else None
    return result
