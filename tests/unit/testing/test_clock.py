"""FakeClock: time passes when nothing else is left to do."""

import asyncio
import os
import time

import pytest

from pbus.bus.memory_leases import MemoryLeaseStore
from pbus.leases import LEASE_S, Lease
from pbus.testing import FakeClock


def test_sleep_takes_no_time():
    """A day's sleep is over at once, and the clock shows a day more."""

    async def main():
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    clock = FakeClock(start=100.0)
    began = time.monotonic()

    assert 86_500 == pytest.approx(clock.run(main()))
    assert 86_500 == pytest.approx(clock())
    assert 3600 > time.monotonic() - began


def test_timers_fire_in_order():
    """A shorter sleep ends earlier, whichever began first."""
    woken = []

    async def wake_after(seconds):
        await asyncio.sleep(seconds)
        woken.append(seconds)

    async def main():
        await asyncio.gather(*map(wake_after, (30, 10, 20)))

    FakeClock().run(main())

    assert [10, 20, 30] == woken


def test_deadline_passes():
    """A deadline in the way of something endless passes."""

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()

    FakeClock().run(main())


def test_busy_loop_stops_time():
    """While something is to be done no time passes."""

    async def main():
        for _ in range(100):
            await asyncio.sleep(0)

    clock = FakeClock()
    clock.run(main())

    assert 0 == clock()


def test_thread_waited_for():
    """A deadline does not pass because a thread takes real time."""

    async def main():
        async with asyncio.timeout(30):
            return await asyncio.to_thread(time.sleep, 0.05)

    clock = FakeClock()
    clock.run(main())

    assert 30 > clock()


def test_connection_waited_for():
    """Nor because something outside takes real time to answer."""

    async def main():
        reading, writing = os.pipe()
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        loop.add_reader(reading, came.set)
        try:
            asyncio.get_running_loop().call_later(0.02, os.write, writing, b"x")
            async with asyncio.timeout(30):
                await came.wait()
        finally:
            loop.remove_reader(reading)
            os.close(reading)
            os.close(writing)

    clock = FakeClock()
    clock.run(main())

    assert 30 > clock()


def test_clock_where_one_is_taken():
    """It goes wherever the library takes a clock."""

    async def main():
        await store.claim(Lease(name="a", incarnation="1", runner="r", host="h", pid=1))
        clock.advance(LEASE_S - 1)
        before = await store.leases()
        clock.advance(1)
        return len(before), len(await store.leases())

    clock = FakeClock()
    store = MemoryLeaseStore(clock)

    assert (1, 0) == asyncio.run(main())
