"""Waiting in tests: always for something, never for longer than a deadline."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

_EVERY_S = 0.005
# Reached only by a test that fails; so it may be as long as a busy machine needs.
PATIENCE_S = 20.0


async def until(predicate: Callable[[], object], timeout: float = PATIENCE_S) -> None:  # noqa: ASYNC109
    """Wait until the predicate holds; fails when it does not in time. Prefer an event."""
    give_up_at = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not so within {timeout:g} s: {_text_of(predicate)}")
        await asyncio.sleep(_EVERY_S)


def eventually(
    predicate: Callable[[], object], timeout: float = PATIENCE_S, every_s: float = 4 * _EVERY_S
) -> bool:
    """Whether the predicate holds within the timeout; for tests without a loop."""
    give_up_at = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(every_s)
    return True


async def happens(event: asyncio.Event, timeout: float = PATIENCE_S) -> None:  # noqa: ASYNC109
    """Wait for an event; fails when it does not come in time."""
    async with asyncio.timeout(timeout):
        await event.wait()


async def finishes(task: asyncio.Task[Any], timeout: float = PATIENCE_S) -> Any:  # noqa: ASYNC109
    """What a task returns; fails when it has not ended in time. It is not cancelled."""
    done, _ = await asyncio.wait({task}, timeout=timeout)
    assert done, f"{task.get_name()} has not ended within {timeout:g} s"
    return task.result()


def run(work: Coroutine[Any, Any, Any], timeout: float = 2 * PATIENCE_S) -> Any:
    """Run a test's coroutine, and fail if it leaves a task behind."""

    async def bounded() -> Any:
        async with asyncio.timeout(timeout):
            result = await work
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=5)  # what was cancelled may still unwind
        names = sorted(task.get_name() for task in left if not task.done())
        assert [] == names, f"tasks left behind: {names}"
        return result

    return asyncio.run(bounded())


def _text_of(predicate: Callable[[], object]) -> str:
    code = getattr(predicate, "__code__", None)
    return f"line {code.co_firstlineno} of {code.co_filename}" if code else repr(predicate)
