"""News of workers reach a process once something in it asks for others; until then it only polls."""

import asyncio
import contextlib

import pytest

from pbus import BaseWorker, WorkerRunner, job, worker_ready
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusDataMessage, BusWorkerReadyMessage, BusWorkerRegistryMessage
from pbus.registry import heartbeat, live_directory
from pbus.registry.table import LEASE_MISSING, entry_of
from support.waiting import PATIENCE_S, finishes, happens, run, until


class NewsPing(BusDataMessage):
    """Something to send."""

    number: int = 0


class Quiet(BaseWorker):
    """Asks for no other worker until it is told to."""

    def __init__(self, name):
        super().__init__(name)
        self.seen = []

    @job(name="add")
    async def on_add(self, request):
        self.seen.append(request.payload)
        return {"is": sum(request.payload["of"])}


class Taker(BaseWorker):
    """Notes the pings that it gets."""

    def __init__(self, name):
        super().__init__(name)
        self.pings = []

    async def on_bus_message(self, message):
        if isinstance(message, NewsPing):
            self.pings.append(message.number)


class Waiter(BaseWorker):
    """Hears when another is ready."""

    def __init__(self, name):
        super().__init__(name)
        self.is_told = asyncio.Event()

    @worker_ready(name="late")
    async def on_late(self, data):
        del data
        self.is_told.set()


class Listener(BusSubscriber):
    """Hears all news, as a supervisor does."""

    name = "listener"
    is_durable = False

    def __init__(self):
        self.ready = []
        self.gone = []

    async def on_bus_message(self, message):
        if isinstance(message, BusWorkerReadyMessage):
            self.ready.append(message.source)
        elif isinstance(message, BusWorkerRegistryMessage):
            self.gone += [entry.name for entry in message.workers if entry.gone]


@pytest.fixture
def no_beats(monkeypatch):
    """No registry polls by itself: what it knows was asked for, or told; leases last without renewals."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)
    for module in ("memory_leases", "redis.leases", "pgmq.leases"):
        monkeypatch.setattr(f"pbus.bus.{module}.LEASE_S", 3600.0)


class Site:
    """Runners of one channel, each on a bus of its own as another process would have it."""

    def __init__(self, make_bus):
        self._make_bus = make_bus
        self._runs = []

    async def open(self, *workers):
        """Start a runner, and wait until its own workers are ready."""
        bus = self._make_bus()
        await bus.start()
        runner = WorkerRunner(bus=bus, session="test")
        await runner.add_workers(*workers)
        self._runs.append((runner, bus, asyncio.create_task(runner.run(auto_end=False))))
        await until(lambda: all(worker.handles_messages for worker in workers))
        return runner

    async def close(self, *runners):
        """End runners, all when none are given."""
        for run_ in [one for one in self._runs if not runners or one[0] in runners]:
            self._runs.remove(run_)
            runner, bus, task = run_
            await runner.cancel("the test is over")
            await finishes(task)
            await bus.stop()


@contextlib.asynccontextmanager
async def site(make_bus):
    """A site that is closed at the end."""
    opened = Site(make_bus)
    try:
        yield opened
    finally:
        await opened.close()


def test_idle_worker_hears_no_news_and_polls_them(make_any_bus, no_beats):
    """Others come and go: no message tells an idle runner, its next poll does; a listener hears all."""

    async def main():
        async with site(make_any_bus) as here:
            quiet = await here.open(Quiet("quiet"))
            carries_news = quiet.bus.carries_news
            listener, bus = Listener(), make_any_bus()
            await bus.start()
            await bus.subscribe(listener)
            try:
                other = await here.open(Taker("other"), Quiet("second"))
                await until(lambda: {"other", "second"} <= set(listener.ready))
                assert carries_news is not quiet.registry.is_there("other")
                await quiet.registry.beat()
                assert quiet.registry.is_there("other")
                await here.close(other)
                await until(lambda: {"other", "second"} <= set(listener.gone))
                await quiet.registry.beat()
                assert not quiet.registry.is_there("other")
                if carries_news:
                    assert 0 == quiet.bus.stats(quiet.name).received
                    assert quiet.registry.is_live is False
            finally:
                await bus.unsubscribe(listener)
                if bus is not quiet.bus:
                    await bus.stop()

    run(main())


def test_first_message_to_a_group_finds_its_replicas(make_any_bus, no_beats):
    """A worker that never asked sends to replicas that came after it: they are known by then."""

    async def main():
        async with site(make_any_bus) as here:
            sender = Quiet("sender")
            runner = await here.open(sender)
            takers = [Taker("taker.1"), Taker("taker.2")]
            for taker in takers:
                await here.open(taker)
            for number in range(4):
                await sender.send_bus_message(
                    NewsPing(source="sender", target="taker", number=number)
                )
            await until(lambda: sum(len(taker.pings) for taker in takers) == 4)
            assert [2, 2] == [len(taker.pings) for taker in takers]
            third = Taker("taker.3")
            await here.open(third)  # from now on it hears of others at once
            await until(lambda: "taker.3" in runner.registry.remote_workers)
            await sender.send_all([
                NewsPing(source="sender", target="taker", number=number) for number in range(10, 16)
            ])
            await until(lambda: len(third.pings) == 2)

    run(main())


def test_watches_are_told_of_early_and_late_workers(make_any_bus, no_beats):
    """A watch calls for a worker that came before it, and hears at once of one that comes or goes later."""

    async def main():
        async with site(make_any_bus) as here:
            runner = await here.open(Quiet("quiet"))
            early = await here.open(Quiet("early"))
            told = asyncio.Queue()
            runner.registry.watch("early", told.put)
            runner.registry.watch_lost("early", told.put)
            async with asyncio.timeout(PATIENCE_S):
                assert "early" == (await told.get()).worker_name
                assert "quiet" == (await runner.registry.wait_ready("quiet")).worker_name
                waiter = Waiter("waiter")
                await here.open(waiter)
                await here.open(Quiet("late"))
                await happens(waiter.is_told)
                await here.close(early)
                assert "early" == (await told.get()).worker_name

    run(main())


def test_job_of_a_restarted_requester_is_not_cancelled(make_any_bus, no_beats):
    """A worker that knows the requester's earlier incarnation does the job of the present one."""

    async def main():
        async with site(make_any_bus) as here:
            first = await here.open(Quiet("asker"))
            doer = Quiet("doer")
            doing = await here.open(doer)
            await doing.registry.beat()
            before = doing.registry.is_there("asker")
            await here.close(first)
            asker = Quiet("asker")
            await here.open(asker)
            async with (
                asyncio.timeout(PATIENCE_S),
                asker.job("doer", name="add", payload={"of": [1, 2]}) as j,
            ):
                pass
            assert (True, {"is": 3}) == (before, j.response)
            assert [{"of": [1, 2]}] == doer.seen
            assert doing.registry.is_live

    run(main())


@pytest.mark.redis
def test_first_message_does_not_wait_for_a_broker_that_is_away(make_any_bus, no_beats, monkeypatch):
    """While the broker is away nothing waits to know others: sending has its own limits."""

    async def main():
        async with site(make_any_bus) as here:
            sender = Quiet("sender")
            runner = await here.open(sender)
            monkeypatch.setattr(type(runner.bus), "is_connected", False)
            hearing = asyncio.Event()
            monkeypatch.setattr(runner.bus, "hear_news", hearing.wait)
            async with asyncio.timeout(PATIENCE_S):
                await sender.send_bus_message(NewsPing(source="sender", target="nowhere"))
            monkeypatch.undo()
            hearing.set()

    run(main())


@pytest.mark.parametrize("is_announced", [True, False])
def test_death_while_another_begins_to_follow(make_any_bus, no_beats, is_announced, monkeypatch):
    """A lease that is removed before the news of it: the news say why; without news it is gone all the same."""
    if is_announced:
        monkeypatch.setattr(live_directory, "_NEWS_S", PATIENCE_S)

    async def main():
        async with site(make_any_bus) as here:
            quiet = await here.open(Quiet("quiet"))
            other = await here.open(Taker("other"))
            await quiet.registry.beat()
            (lease,) = [one for one in await other.bus.leases.leases() if one.name == "other"]
            hear_news, reasons = quiet.bus.hear_news, []

            async def hear_and_lose():
                await hear_news()
                await other.bus.leases.release([lease.incarnation])

            async def note(data):
                reasons.append(data.reason)

            quiet.bus.hear_news = hear_and_lose
            if not quiet.bus.carries_news:
                return
            quiet.registry.watch_lost("other", note)
            await quiet.registry.follow()
            if is_announced:
                entry = entry_of(lease, gone="was killed by SIGKILL")
                await other.bus.send(
                    BusWorkerRegistryMessage(source="sup", runner=lease.runner, workers=(entry,))
                )
            await until(lambda: reasons)
            assert [("was killed by SIGKILL" if is_announced else LEASE_MISSING)] == reasons
            assert not quiet.registry.is_there("other")

    run(main())
