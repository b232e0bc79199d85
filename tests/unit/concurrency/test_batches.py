"""Calls that are made for several at once."""

import asyncio

import pytest

from pbus.concurrency import batches
from pbus.concurrency.batches import Batches
from support.waiting import run, until


class Callee:
    """Notes what it is given at once; waits for a word before it is done."""

    def __init__(self):
        self.calls = []
        self.goes_on = asyncio.Event()
        self.error = None

    async def work(self, items):
        self.calls.append(list(items))
        await self.goes_on.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error


def test_what_comes_meanwhile_goes_together():
    """The first goes alone, the others in one call after it, each waits for its own call."""

    async def main():
        callee = Callee()
        gathered = Batches(callee.work)
        first = asyncio.create_task(gathered.add(["a"]))
        await until(lambda: callee.calls)
        others = [asyncio.create_task(gathered.add([name])) for name in "bcd"]
        await asyncio.sleep(0)
        assert not first.done()
        callee.goes_on.set()
        await asyncio.gather(first, *others)
        assert [["a"], ["b", "c", "d"]] == callee.calls
        await gathered.add(["e", "f"])
        assert ["e", "f"] == callee.calls[-1]

    run(main())


def test_cancelled_wait_changes_nothing_for_others(caplog):
    """Its item is dealt with all the same; an error for which none waits is not logged."""

    async def main():
        callee = Callee()
        gathered = Batches(callee.work)
        one, other = (asyncio.create_task(gathered.add([name])) for name in "ab")
        await until(lambda: callee.calls)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        callee.goes_on.set()
        await other
        assert [["a", "b"]] == callee.calls

        callee.goes_on.clear()
        callee.error = ValueError("alone")
        alone = asyncio.create_task(gathered.add(["c"]))
        await until(lambda: len(callee.calls) == 2)
        alone.cancel()
        callee.goes_on.set()
        await asyncio.gather(alone, return_exceptions=True)
        await gathered.add(["d"])

    run(main())
    assert not caplog.records


def test_error_is_that_of_its_batch(monkeypatch):
    """All of one call get its error, and the next call is made; a call has no more than its bound."""
    monkeypatch.setattr(batches, "_MOST", 2)

    async def main():
        callee = Callee()
        callee.error = KeyError("the store is away")
        gathered = Batches(callee.work)
        waits = [asyncio.create_task(gathered.add([number])) for number in range(5)]
        await until(lambda: callee.calls)
        callee.goes_on.set()
        ended = await asyncio.gather(*waits, return_exceptions=True)
        assert [[0, 1], [2, 3], [4]] == callee.calls
        assert [True, True, False, False, False] == [isinstance(one, KeyError) for one in ended]

    run(main())
