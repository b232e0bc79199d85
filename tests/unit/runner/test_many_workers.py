"""Many workers in one process: what one more costs does not depend on how many there are."""

import asyncio

from pbus import BaseWorker, WorkerRunner, job
from pbus.bus.local.router import MOST_OBSERVERS
from pbus.bus.memory import AsyncQueueBus
from pbus.bus.memory_leases import MemoryLeaseStore
from pbus.messages import BusWorkerReadyMessage
from support.waiting import PATIENCE_S, run, until

COUNT = 300


class Idle(BaseWorker):
    """Does nothing."""


class Doer(BaseWorker):
    """Does one kind of job."""

    @job(name="square")
    async def on_square(self, request):
        return {"is": request.payload["of"] ** 2}


class Observer(BaseWorker):
    """Notes which workers are ready."""

    def __init__(self, name):
        super().__init__(name)
        self.seen = []

    async def on_bus_message(self, message):
        if isinstance(message, BusWorkerReadyMessage):
            self.seen.append(message.source)


class CountingStore(MemoryLeaseStore):
    """Counts the leases that it returns and looks at."""

    def __init__(self):
        super().__init__()
        self.told = 0
        self.calls = 0

    async def release(self, incarnations, *, names=None):
        self.calls += 1
        await asyncio.sleep(0)  # as long as a call takes, others end
        return await super().release(incarnations, names=names)

    async def renew(self, leases, *, version=-1):
        self.calls += 1
        renewal = await super().renew(leases, version=version)
        self.told += len(renewal.leases or ())
        return renewal


async def hosting(workers, work):
    """Run workers in one process, and work with them once all are ready."""
    runner = WorkerRunner(bus=AsyncQueueBus(), session="test")
    store = runner.bus._leases = CountingStore()
    await runner.add_workers(*workers)
    running = asyncio.create_task(runner.run(auto_end=False))
    await until(lambda: len(runner.registry.ready_names()) == len(workers))
    try:
        await work(runner, store)
    finally:
        store.calls = 0
        await runner.end()
        async with asyncio.timeout(PATIENCE_S):
            await running
    assert [] == runner.errors
    assert [] == await store.leases()
    assert store.calls < COUNT / 2  # they end together


def test_start_and_end_are_linear():
    """No lease is told for each start, no message goes to each worker, no task is made for each end."""
    asked = []

    async def work(runner, store):
        assert store.told <= COUNT
        await runner.registry.beat()
        await runner.registry.beat()
        assert store.told <= 2 * COUNT
        boxes = runner.bus._router.mailboxes()
        assert not sum(box.received + box.queued for box in boxes if box.name != runner.name)
        calls = runner.registry._watches.lost
        call = calls.call
        calls.call = lambda name, data: (asked.append((name, len(calls.all()))), call(name, data))

    run(hosting([Idle(f"idle.{number}") for number in range(COUNT)], work))
    assert COUNT == sum(1 for name, _ in asked if name is None)
    assert 0 == sum(count for _, count in asked)


def test_observers_are_bounded():
    """The first of many observers see all others; a handler that is added later sees them, too."""
    observers = [Observer(f"o{number}") for number in range(MOST_OBSERVERS + 3)]
    late, seen = Idle("late"), []

    async def work(runner, _store):
        runner.get_worker("o1").add_event_handler("on_bus_message", lambda *_: None)
        late.add_event_handler("on_bus_message", lambda _, message: seen.append(message.source))
        await runner.remove_workers("o5")
        await runner.add_workers(Idle("last"))
        await until(lambda: "last" in observers[0].seen)
        await until(lambda: "last" in observers[MOST_OBSERVERS].seen)
        assert "last" not in observers[-1].seen
        assert [] == seen  # there are observers enough before it
        for number in range(6, 12):
            await runner.remove_workers(f"o{number}")
        await runner.add_workers(Idle("very last"))
        await until(lambda: "very last" in seen)

    run(hosting([*observers, late], work))


def test_jobs_among_many():
    """Workers get what jobs need with their first job, and hear of losses from then on."""
    doers = [Doer(f"doer{number}") for number in range(20)]
    askers = [Idle(f"asker{number}") for number in range(20)]

    async def work(runner, _store):
        assert all(
            one._made_job_client is one._made_job_executor is None for one in (*doers, *askers)
        )
        assert {} == askers[0].job_groups == doers[0].active_jobs
        assert not askers[0].open_jobs().requested
        for number, asker in enumerate(askers[:3]):
            async with asker.job(f"doer{number}", "square", {"of": number}) as asked:
                pass
            assert {"is": number**2} == asked.response
        assert 6 == len(runner.registry._watches.lost.all())
        assert all(one._made_job_executor is None for one in doers[3:])

    run(hosting([*doers, *askers], work))


def test_children_end_with_their_parent():
    """The children of each worker are found without a look at all others."""

    class Parent(BaseWorker):
        async def start(self):
            for number in range(3):
                await self.add_workers(Idle(f"{self.name}-child{number}"))

    async def scenario():
        runner = WorkerRunner(bus=AsyncQueueBus(), session="test")
        parents = [Parent(f"p{number}") for number in range(4)]
        await runner.add_workers(*parents)
        running = asyncio.create_task(runner.run(auto_end=True))
        await until(lambda: len(runner.registry.ready_names()) == 16)
        hosted = runner._hosted
        assert 4 == len(hosted.roots())
        await runner.remove_workers("p1")
        await until(lambda: len(runner.registry.ready_names()) == 12)
        assert "p1-child0" not in runner.registry
        await runner.remove_workers("p0", "p2", "p3")
        async with asyncio.timeout(PATIENCE_S):
            await running  # the last root has ended
        assert ([], {}, False) == (hosted.roots(), hosted._families, hosted.has_roots)

    run(scenario())
