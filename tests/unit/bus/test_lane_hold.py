"""A handler holds its lane until it ends or releases it."""

import asyncio

from pbus.bus.local.hook_hold import LaneHold
from pbus.bus.local.lane_hold import release_lane
from support.waiting import PATIENCE_S, run


def test_hold_is_released_by_its_end():
    """A hold lasts until its hook ends."""

    async def main():
        hold, gate = LaneHold(), asyncio.Event()
        task = hold.start(gate.wait(), "handler")
        assert not await hold.wait_released(0.01)
        gate.set()
        assert await hold.wait_released(PATIENCE_S)
        await task

    run(main())


def test_hold_can_be_released():
    """A handler, or a task that it started, releases the lane while it waits."""

    async def main():
        released, gate = [], asyncio.Event()

        async def inner():
            with release_lane():
                await gate.wait()

        async def handler():
            await asyncio.create_task(inner())

        hold = LaneHold(on_released=lambda: released.append(True))
        task = hold.start(handler(), "handler")
        assert await hold.wait_released(PATIENCE_S)
        assert ([True], False) == (released, task.done())
        gate.set()
        await task
        with release_lane():  # no hold here: nothing happens
            pass

    run(main())
