"""Start slots: few workers start at once, in order, and none keeps others out for good."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from pbus.process.supervisor.worker.host import Blocker
from pbus.process.supervisor.worker.start_slots import StartSlots, StartTurn, usual_limit
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.supervisor.worker.worker_target import WorkerTarget
from pbus.topology.model import WorkerInstance, WorkerSpec

PATIENCE_S = 10.0
LONG_S = 1000.0


class Starter:
    """One worker that waits for its turn; `order` is told when it has come."""

    def __init__(self, name: str, slots: StartSlots, order: list[str]) -> None:
        spec = WorkerSpec(name=name, working_dir=Path("/"), joins=True)
        self.status = WorkerStatus(WorkerInstance(name=name, spec=spec), lambda: 0.0)
        self.target = WorkerTarget(lambda: 0.0)
        self.turn = StartTurn(slots, self.status, self.target)
        self.blocker: Blocker | None = None
        self._order = order
        self.task = asyncio.create_task(self._start())

    async def _start(self) -> bool:
        is_wanted = await self.turn.wait(lambda: self.blocker)
        if is_wanted:
            self._order.append(self.status.name)
        return is_wanted

    async def result(self) -> bool:
        return await asyncio.wait_for(self.task, PATIENCE_S)

    @property
    def shown(self) -> tuple[str, str | None]:
        record = self.status.record()
        return record.state, record.reason


def run(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(play(), PATIENCE_S))


async def turn_of_loop() -> None:
    """Let every task run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_limit_follows_the_cores_that_may_be_used():
    """Four a core, and at least one core."""
    assert usual_limit() >= 4
    assert 0 == usual_limit() % 4


def test_no_more_start_than_there_are_slots_and_in_order():
    """A slot that is freed goes to the first that waits; each frees it for one only."""

    async def play() -> None:
        order: list[str] = []
        slots = StartSlots(2, LONG_S)
        starters = [Starter(f"w{n}", slots, order) for n in range(6)]
        await turn_of_loop()
        assert ["w0", "w1"] == order
        assert ("starting", "waiting for others to start") == starters[5].shown
        assert ("starting", None) == starters[0].shown
        for _ in range(3):
            starters[1].turn.free()  # idempotent: one slot, not three
        await turn_of_loop()
        assert ["w0", "w1", "w2"] == order
        for number in (0, 2, 3, 4):
            starters[number].turn.free()
            await turn_of_loop()
        assert [f"w{n}" for n in range(6)] == order

    run(play)


def test_a_worker_asks_for_one_slot_however_often_it_is_woken():
    """Waking neither gives a second place in the queue nor a second slot."""

    async def play() -> None:
        order: list[str] = []
        slots = StartSlots(1, LONG_S)
        first, second, third = (Starter(name, slots, order) for name in "abc")
        for _ in range(3):
            second.target.wake()
            await turn_of_loop()
        assert ["a"] == order
        first.turn.free()
        await turn_of_loop()
        assert ["a", "b"] == order
        second.turn.free()
        assert await third.result()
        assert ["a", "b", "c"] == order

    run(play)


def test_a_slot_is_free_again_after_its_time():
    """A start that hangs, or waits for a worker that is queued, does not keep others out."""

    async def play() -> None:
        order: list[str] = []
        slots = StartSlots(1, 0.01)
        starters = [Starter(name, slots, order) for name in "abc"]
        assert [True, True, True] == [await one.result() for one in starters]
        assert ["a", "b", "c"] == order

    run(play)


def test_a_word_of_an_earlier_holder_takes_no_slot_from_a_later_one():
    """Who lost the slot by time frees nothing when it registers at last."""

    async def play() -> None:
        order: list[str] = []
        slots = StartSlots(1, LONG_S)
        first, second, third = (Starter(name, slots, order) for name in "abc")
        await turn_of_loop()
        first.turn.free()
        await turn_of_loop()
        first.turn.free()
        await turn_of_loop()
        assert ["a", "b"] == order
        second.turn.free()
        assert await third.result()

    run(play)


def test_what_is_not_wanted_leaves_the_queue():
    """A worker that is stopped while it waits neither starts nor takes the turn of another."""

    async def play() -> None:
        order: list[str] = []
        slots = StartSlots(1, LONG_S)
        first, stopped, third = (Starter(name, slots, order) for name in "abc")
        await turn_of_loop()
        stopped.target.stop(None)
        assert not await stopped.result()
        assert "exited" == stopped.status.state
        first.turn.free()
        assert await third.result()
        assert ["a", "c"] == order

    run(play)


def test_who_waits_for_a_dependency_holds_no_slot():
    """Nor keeps its place, once a dependency is lost; a failed one fails it."""

    async def play() -> None:
        order: list[str] = []
        slots = StartSlots(1, LONG_S)
        waiting = Starter("waiting", slots, order)
        waiting.blocker = Blocker("db to be ready")
        first, lost, failing = (Starter(name, slots, order) for name in ("a", "lost", "failing"))
        await turn_of_loop()
        assert ("waiting", "waiting for db to be ready") == waiting.shown
        assert ["a"] == order
        lost.blocker = Blocker("db to be ready")
        lost.target.wake()
        failing.blocker = Blocker("db", has_failed=True)
        failing.target.wake()
        assert not await failing.result()
        assert "failed" == failing.status.state
        first.turn.free()
        await turn_of_loop()
        assert ["a"] == order
        waiting.blocker = None
        waiting.target.wake()
        assert await waiting.result()
        waiting.turn.free()
        lost.blocker = None
        lost.target.wake()
        assert await lost.result()

    run(play)
