"""A handler holds its lane until it ends or releases it."""

import asyncio

from pbus.bus.local.lane_hold import LaneHold, lending
from support.waiting import PATIENCE_S, run


def test_turn_is_over_with_handler():
    """A turn lasts until its handler ends."""

    async def main():
        turn, gate = LaneHold(), asyncio.Event()
        task = turn.start(gate.wait(), "handler")
        assert not await turn.over(0.01)
        gate.set()
        assert await turn.over(PATIENCE_S)
        await task

    run(main())


def test_turn_can_be_lent():
    """A handler, or a task that it started, lets the lane go on while it waits."""

    async def main():
        lent, gate = [], asyncio.Event()

        async def inner():
            with lending():
                await gate.wait()

        async def handler():
            await asyncio.create_task(inner())

        turn = LaneHold(on_over=lambda: lent.append(True))
        task = turn.start(handler(), "handler")
        assert await turn.over(PATIENCE_S)
        assert ([True], False) == (lent, task.done())
        gate.set()
        await task
        with lending():  # no turn here: nothing happens
            pass

    run(main())
