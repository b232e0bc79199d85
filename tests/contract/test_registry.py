"""What the registry promises, on every backend: two runners' registries over a real bus."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from pbus.bus.subscriber import BusSubscriber
from pbus.errors import DuplicateWorkerError, WorkerNotFoundError
from pbus.leases import LEASE_S
from pbus.messages import BusWorkerRegistryMessage, WorkerRegistryEntry
from pbus.registry import WorkerRegistry, heartbeat
from support.waiting import PATIENCE_S, run


@pytest.fixture
def make_bus(make_forgetting_bus):
    """What is kept of messages is nothing to a registry."""
    return make_forgetting_bus


@pytest.fixture
def no_polls(monkeypatch):
    """No registry asks the store again: what is heard was announced."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 3600.0)


class Office(BusSubscriber):
    """A registry on a bus, as a runner has it."""

    def __init__(self, name, bus):
        self.name = name
        self.bus = bus
        self.registry = WorkerRegistry(name, bus, "session")
        self.is_deaf = False
        self.told = asyncio.Queue()

    def accepts_bus_message(self, message):
        return isinstance(message, BusWorkerRegistryMessage) and not self.is_deaf

    async def on_bus_message(self, message):
        self.registry.on_announcement(message)

    async def note(self, data):
        self.told.put_nowait(data)

    async def next_told(self, within=PATIENCE_S):
        async with asyncio.timeout(within):
            return await self.told.get()

    async def add(self, name, **fields):
        lease = self.registry.new_lease(name, **fields)
        await self.registry.register(lease)
        await self.registry.set_ready(name)
        return lease


@asynccontextmanager
async def offices(make_bus, *names):
    """Registries at work, each on a bus as another process would have it."""
    opened = [Office(name, make_bus()) for name in names]
    try:
        for office in opened:
            await office.bus.start()
            await office.bus.subscribe(office)
            await office.registry.start()
        yield opened
    finally:
        for office in opened:
            await office.registry.stop()
        for office in opened:
            await office.bus.stop()


def test_ready_is_told_at_once(make_bus, no_polls):
    """A watcher in another process hears of a ready worker without waiting for a poll."""

    async def main():
        async with offices(make_bus, "here", "there") as (here, there):
            there.registry.watch("w", there.note)
            lease = await here.add("w", active=False)
            data = await there.next_told()
            assert ("w", "here", lease.incarnation, False) == (
                data.worker_name, data.runner, data.incarnation, data.active,
            )  # fmt: skip
            assert data == there.registry.get("w")

    run(main())


def test_leaving_is_told_at_once(make_bus, no_polls):
    """A watcher in another process hears at once that a worker left, and why."""

    async def main():
        async with offices(make_bus, "here", "there") as (here, there):
            lease = await here.add("w")
            await there.registry.wait_ready("w", PATIENCE_S)
            there.registry.watch_lost("w", there.note)
            await here.registry.unregister("w", "has ended")
            data = await there.next_told()
            assert (lease.incarnation, "has ended") == (data.incarnation, data.reason)
            assert "w" not in there.registry

    run(main())


def test_poll_makes_good(make_bus):
    """A process that missed every announcement learns who is there all the same."""

    async def main():
        async with offices(make_bus, "here", "there") as (here, there):
            there.is_deaf = True
            await here.add("w")
            data = await there.registry.wait_ready("w", PATIENCE_S)
            assert "here" == data.runner

    run(main())


def test_latecomer_knows_all(make_bus):
    """A registry that starts later knows who is there as soon as it has started."""

    async def main():
        async with offices(make_bus, "here") as (here,):
            await here.add("w")
            async with offices(make_bus, "late") as (late,):
                assert ["w"] == late.registry.remote_workers

    run(main())


def test_w06_name_has_one_holder(make_bus):
    """Of two processes that take one name at the same moment exactly one gets it."""

    async def main():
        async with offices(make_bus, "here", "there") as both:
            results = await asyncio.gather(
                *(office.add("w") for office in both), return_exceptions=True
            )
            refused = [result for result in results if isinstance(result, DuplicateWorkerError)]
            assert 1 == len(refused)
            holder = both[0] if refused[0] is results[1] else both[1]
            assert f"runner {holder.name!r}" in refused[0].holder

    run(main())


def test_name_is_free_again(make_bus):
    """A name can be taken again, elsewhere, as soon as its holder has left."""

    async def main():
        async with offices(make_bus, "here", "there") as (here, there):
            there.registry.watch("w", there.note)
            first = await here.add("w")
            assert first.incarnation == (await there.next_told()).incarnation
            await here.registry.unregister("w", "has ended")
            second = await there.add("w")
            assert second.incarnation == (await there.next_told()).incarnation

    run(main())


def test_w07_dead_worker_is_lost(make_bus):
    """A worker whose process is gone without a word is lost after its lease, and says so."""

    async def main():
        async with offices(make_bus, "here", "dying") as (here, dying):
            lease = await dying.add("w")
            await here.registry.wait_ready("w", PATIENCE_S)
            here.registry.watch_lost("w", here.note)
            await dying.registry.stop()  # no heartbeat any more, and no unregistering
            data = await here.next_told(within=LEASE_S + PATIENCE_S)
            assert lease.incarnation == data.incarnation
            with pytest.raises(WorkerNotFoundError):
                await here.registry.wait_ready("w", 0.05)
            assert [] == await here.bus.leases.leases()

    run(main())


def test_group_watch_fires_once(make_bus):
    """A group's watcher hears of its first replica; all replicas are found, by number."""

    async def main():
        async with offices(make_bus, "here", "there") as (here, there):
            there.registry.watch("x", there.note)
            there.registry.watch_lost("x", there.note)
            await here.add("x.2")
            assert "x.2" == (await there.next_told()).worker_name
            await here.add("x.1")
            await here.add("x.10", active=False)
            await there.registry.wait_ready("x.10", PATIENCE_S)
            assert ["x.1", "x.2"] == [data.worker_name for data in there.registry.ready("x")]
            await here.registry.unregister("x.2", "has ended")
            assert "has ended" == (await there.next_told()).reason

    run(main())


def test_activity_is_told(make_bus):
    """Others see at once whether a worker is active, and its next incarnation can be told."""

    async def main():
        async with offices(make_bus, "here", "there") as (here, there):
            await here.add("w", active=False)
            await there.registry.wait_ready("w", PATIENCE_S)
            await here.registry.set_active("w", active=True, args={"n": 1})
            await there.registry.beat()
            assert ["w"] == [data.worker_name for data in there.registry.ready("w")]
            activation = await there.registry.last_activation("w")
            assert (True, {"n": 1}) == (activation.active, activation.args)

    run(main())


def test_w38_forged_worker_vanishes(make_bus):
    """A worker that is only announced is dropped when the store does not confirm it."""

    async def main():
        async with offices(make_bus, "here") as (here,):
            here.registry.watch_lost("fake", here.note)
            forged = WorkerRegistryEntry(name="fake", incarnation="f.1", runner="nobody")
            message = BusWorkerRegistryMessage(source="evil", runner="nobody", workers=(forged,))
            await here.bus.send(message)
            assert "fake" == (await here.next_told()).worker_name

    run(main())


def test_w25_children_are_unknown_elsewhere(make_bus):
    """A child is known in its own process and never, not even later, in another."""

    async def main():
        async with offices(make_bus, "here", "there") as (here, there):
            here.registry.add_child(here.registry.new_lease("kid"))
            await here.registry.set_ready("kid")
            await here.add("w")  # the next announcement does not take the child along
            await there.registry.wait_ready("w", PATIENCE_S)
            await there.registry.beat()
            assert (True, False) == ("kid" in here.registry, "kid" in there.registry)
            assert ["w"] == [lease.name for lease in await here.bus.leases.leases()]

    run(main())
