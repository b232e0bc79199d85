"""The turn of a lane's reader: ended at once, soon, or by a cancellation; once each."""

import asyncio
from contextvars import ContextVar

import pytest

from pbus.bus.local.lane import ReaderTurn
from support.waiting import run

_value = ContextVar("value", default="the caller's")


class Reader:
    """A task that waits for one turn, and notes how it went on."""

    def __init__(self):
        self.turn = ReaderTurn()
        self.seen = []
        self.task = asyncio.create_task(self._wait())

    async def _wait(self):
        _value.set("the reader's")
        try:
            await self.turn
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        self.seen += [asyncio.current_task() is self.task, _value.get()]

    async def ended(self):
        """Wait for the end of the task."""
        await asyncio.wait_for(self.task, 5)


async def waiting():
    """A reader that waits."""
    reader = Reader()
    await asyncio.sleep(0)
    return reader


async def in_callback(call):
    """Call a function where no task is running; returns what it returns."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: done.set_result(call()))
    return await done


def test_goes_on_within_a_callback():
    """It has gone on, as its own task and in its own context, when go_on() returns."""

    async def main():
        reader = await waiting()

        def go_on():
            reader.turn.go_on()
            return [*reader.seen, _value.get(), asyncio.current_task()]

        assert [True, "the reader's", "the caller's", None] == await in_callback(go_on)
        await reader.ended()

    run(main())


def test_goes_on_later_beside_a_running_task():
    """Within another task it is resumed by the loop, since tasks do not nest."""

    async def main():
        reader = await waiting()
        reader.turn.go_on()
        assert (True, []) == (reader.turn.done(), reader.seen)
        await reader.ended()
        assert [True, "the reader's"] == reader.seen

    run(main())


@pytest.mark.parametrize(
    "calls",
    [
        lambda turn: (turn.go_on(), turn.go_on()),
        lambda turn: (turn.set_result(None), turn.go_on()),
        lambda turn: turn.set_result(None),
    ],
    ids=["twice at once", "soon and at once", "soon"],
)
def test_goes_on_once(calls):
    """Whatever ends its turn, and however often, it goes on once."""

    async def main():
        reader = await waiting()
        await in_callback(lambda: calls(reader.turn))
        await reader.ended()
        reader.turn.go_on()
        assert [True, "the reader's"] == reader.seen

    run(main())


def test_cancelled_reader_is_not_resumed_again():
    """A turn that ends after the cancellation changes nothing."""

    async def main():
        reader = await waiting()
        reader.task.cancel()
        await in_callback(reader.turn.go_on)
        with pytest.raises(asyncio.CancelledError):
            await reader.ended()
        assert ["cancelled"] == reader.seen

    run(main())


def test_cancelled_after_its_turn_ended():
    """A cancellation between the end of the turn and the resumption is not lost."""

    async def main():
        reader = await waiting()
        reader.turn.set_result(None)
        reader.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader.ended()
        assert ["cancelled"] == reader.seen

    run(main())


def test_turn_that_ended_before_it_is_awaited():
    """It is no wait; what is called at its end is called soon."""

    async def main():
        turn, called = ReaderTurn(), asyncio.Event()
        await in_callback(turn.go_on)
        await turn
        turn.add_done_callback(lambda _: called.set())
        await asyncio.wait_for(called.wait(), 5)

    run(main())


def test_error_of_the_reader_stays_in_its_task():
    """What the reader raises does not reach the socket's callback."""

    async def main():
        turn = ReaderTurn()

        async def wait():
            await turn
            raise ValueError("of the reader")

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        await in_callback(turn.go_on)
        with pytest.raises(ValueError, match="of the reader"):
            await asyncio.wait_for(task, 5)

    run(main())
