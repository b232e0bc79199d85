"""Whether a program ends."""

import asyncio

from pbus.bus.local.loop_end import LoopEnd


def test_end_is_when_all_are_cancelled(monkeypatch):
    """One task that goes on is enough, and all tasks are looked at once a turn at most."""
    asked = []
    all_tasks = asyncio.all_tasks

    def counted(loop=None):
        asked.append(loop)
        return all_tasks(loop)

    end, found = LoopEnd(), []

    def note(_task):
        found.append(end.has_come())

    async def main():
        others = [asyncio.create_task(asyncio.sleep(60)) for _ in range(50)]
        for task in others:
            task.add_done_callback(note)
        for task in others[:20]:
            task.cancel()
        await asyncio.wait(others[:20])
        monkeypatch.setattr(asyncio, "all_tasks", counted)

    asyncio.run(main())
    assert [False] * 20 + [True] * 30 == found
    assert len(asked) <= 5


def test_end_of_one_loop_is_not_that_of_another():
    """A task of a loop that is over says nothing of the next one."""
    end, found = LoopEnd(), []

    async def main():
        found.append(end.has_come())

    asyncio.run(main())
    asyncio.run(main())
    assert [False, False] == found
