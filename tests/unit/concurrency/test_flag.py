"""A flag to wait for."""

import asyncio

import pytest

from pbus.concurrency.flag import Flag
from support.waiting import run


def test_flag_wakes_all_that_wait():
    """All waits end when it is set, later ones at once, and again after it was reset."""

    async def main():
        flag = Flag()
        waits = [asyncio.create_task(flag.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(wait.done() for wait in waits)
        flag.set()
        flag.set()
        await asyncio.gather(*waits)
        await flag.wait()
        assert flag.is_set
        flag.clear()
        again = asyncio.create_task(flag.wait())
        await asyncio.sleep(0)
        assert not again.done()
        flag.set()
        await again

    run(main())


def test_cancelled_wait_leaves_the_others():
    """Who gives up waiting does not end the waits of others, nor the flag."""

    async def main():
        flag = Flag()
        one, other = (asyncio.create_task(flag.wait()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        flag.set()
        await other
        assert Flag(is_set=True).is_set

    run(main())


def test_wait_that_is_cancelled_as_it_ends():
    """A flag that is set, and whose waiter is cancelled in the same turn, can be used again."""

    async def main():
        flag = Flag()
        wait = asyncio.create_task(flag.wait())
        await asyncio.sleep(0)
        flag.set()
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        flag.clear()
        again = asyncio.create_task(flag.wait())
        await asyncio.sleep(0)
        flag.set()
        await again

    run(main())
