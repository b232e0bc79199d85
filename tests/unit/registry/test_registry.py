"""The registry against a store whose clock the test turns: expiry, outages, refusals."""

import asyncio

import pytest
from msgspec import structs

from pbus.bus.memory import AsyncQueueBus
from pbus.bus.memory_leases import MemoryLeaseStore
from pbus.bus.subscriber import BusSubscriber
from pbus.errors import BusUnavailableError, DuplicateWorkerError, WorkerNotFoundError
from pbus.leases import HEARTBEAT_S, LEASE_S, Activation, Lease
from pbus.messages import BusWorkerRegistryMessage, WorkerRegistryEntry
from pbus.registry import WorkerFigures, WorkerReadyData, WorkerRegistry, entry_of
from support.waiting import PATIENCE_S, happens, run, until


class Store(MemoryLeaseStore):
    """A store that can be away, and come back empty."""

    def __init__(self, clock):
        super().__init__(clock)
        self.clock = clock
        self.is_away = False
        self.renewals = 0

    async def renew(self, leases, *, version=-1):
        self.renewals += 1
        if self.is_away:
            raise BusUnavailableError("memory://", "it is away")
        return await super().renew(leases, version=version)

    def forget(self):
        """Restart with nothing."""
        self._leases, self._version = {}, 0


class World:
    """One store, one clock, and registries that hear each other when told to."""

    def __init__(self):
        self.now = 1_000.0
        self.bus = AsyncQueueBus()
        self.store = self.bus._leases = Store(lambda: self.now)
        self.lost = []
        self.registries = []

    def registry(self, runner="here", session="s"):
        """A registry of its own runner; announcements are not passed on."""
        registry = WorkerRegistry(runner, self.bus, session, clock=lambda: self.now)

        async def note_lost(data):
            self.lost.append((runner, data.worker_name, data.reason))

        registry.watch_lost(None, note_lost)
        self.registries.append(registry)
        return registry

    async def pass_time(self, seconds, *registries):
        """Let time pass with the heartbeats of these registries."""
        until_when = self.now + seconds
        while self.now < until_when:
            self.now = min(self.now + HEARTBEAT_S, until_when)
            for registry in registries:
                await registry.beat()
        await asyncio.sleep(0)


async def add(registry, name, **fields):
    lease = registry.new_lease(name, **fields)
    await registry.register(lease)
    await registry.set_ready(name)
    return lease


def in_world(scenario):
    """Run a scenario in a world of its own."""

    async def main():
        world = World()
        async with world.bus:
            await scenario(world)
            for registry in world.registries:
                await registry.stop()

    run(main())


def test_ready_worker_is_found():
    """A registered worker is found once it is ready, here at once and there by polling."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        lease = here.new_lease("w", active=False, jobs=["search"])
        await here.register(lease)
        assert here.get("w") is None
        await here.set_ready("w")
        await there.beat()

        expected = WorkerReadyData("w", "here", lease.incarnation, active=False)
        assert (expected, expected) == (here.get("w"), there.get("w"))
        assert "w" in there
        assert (["w"], []) == (here.local_workers, here.remote_workers)
        assert ([], ["w"]) == (there.local_workers, there.remote_workers)
        assert ([], []) == (here.ready("w"), here.ready("nobody"))
        await here.set_active("w", active=True)
        assert ["w"] == [data.worker_name for data in here.ready("w")]

    in_world(scenario)


def test_taken_name_is_refused():
    """A second holder is told who has the name."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        await add(here, "w")
        with pytest.raises(DuplicateWorkerError, match="runner 'here'"):
            await add(there, "w")
        with pytest.raises(DuplicateWorkerError, match="this runner"):
            await add(here, "w")

    in_world(scenario)


def test_unregistered_name_is_free():
    """A worker that left is lost with its reason, and its name can be taken at once."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        await add(here, "w")
        await here.unregister("w", "ended")
        await add(there, "w")
        await asyncio.sleep(0)
        assert [("here", "w", "ended")] == world.lost
        assert [] == here.local_workers

    in_world(scenario)


def test_w07_dead_worker_is_removed():
    """A worker whose process died is lost after its lease, and found no more."""

    async def scenario(world):
        here, dying = world.registry("here"), world.registry("dying")
        await add(dying, "w")
        await here.beat()
        assert "w" in here
        await world.pass_time(LEASE_S - HEARTBEAT_S, here)
        assert "w" in here
        await world.pass_time(2 * HEARTBEAT_S, here)
        assert [("here", "w", "lease expired")] == world.lost
        assert "w" not in here
        with pytest.raises(WorkerNotFoundError):
            await here.wait_ready("w", 0.01)

    in_world(scenario)


def test_expiry_is_announced():
    """Who removes an expired lease tells everybody."""

    async def scenario(world):
        heard = asyncio.Queue()

        class Observer(BusSubscriber):
            name = "observer"

            async def on_bus_message(self, message):
                heard.put_nowait(message)

        here, dying = world.registry("here"), world.registry("dying")
        await add(dying, "w")
        await here.beat()
        await world.bus.subscribe(Observer())
        await world.pass_time(LEASE_S, here)
        async with asyncio.timeout(PATIENCE_S):
            message = await heard.get()
        assert isinstance(message, BusWorkerRegistryMessage)
        assert [("w", "lease expired")] == [(each.name, each.gone) for each in message.workers]

    in_world(scenario)


def test_living_worker_stays():
    """Heartbeats keep a worker registered however long it runs."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        await add(here, "w")
        await world.pass_time(10 * LEASE_S, here, there)
        assert ("w" in there, []) == (True, world.lost)

    in_world(scenario)


def test_late_holder_returns():
    """A worker that was late for its lease keeps its name unless another took it meanwhile."""

    async def scenario(world):
        here, late = world.registry("here"), world.registry("late")
        await add(late, "w")
        await world.pass_time(2 * LEASE_S, here)
        assert "w" not in here
        await late.beat()
        await here.beat()
        assert ("w" in here, "w" in late) == (True, True)

    in_world(scenario)


def test_late_holder_is_refused():
    """A worker that was late and whose name was taken is told so, and does not disturb."""

    async def scenario(world):
        here, late = world.registry("here"), world.registry("late")
        refused = []
        late.on_name_taken = lambda name, holder: refused.append((name, holder.split(" (")[0]))
        await add(late, "w")
        world.now += LEASE_S
        await add(here, "w")
        await late.beat()
        assert [("w", "runner 'here'")] == refused
        await late.unregister("w", "refused")
        await here.beat()
        assert (["w"], ["w"]) == (here.local_workers, late.remote_workers)

    in_world(scenario)


def test_outage_loses_none():
    """While the store is away, and one lease time longer, no worker counts as lost."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        await add(there, "w")
        await here.beat()
        world.store.is_away = True
        await world.pass_time(5 * LEASE_S, here, there)
        world.store.is_away = False
        await here.beat()  # first back: finds the lease of w expired
        await asyncio.sleep(0)
        assert ("w" in here, []) == (True, world.lost)
        await there.beat()
        await world.pass_time(2 * LEASE_S, here, there)
        assert ("w" in here, []) == (True, world.lost)

    in_world(scenario)


def test_sleep_loses_none():
    """After the whole machine slept, the first to wake up does not declare the others lost."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        await add(here, "a")
        await add(there, "b")
        await here.beat()
        world.now += 10 * LEASE_S
        await world.pass_time(2 * LEASE_S, here, there)
        assert (["b"], ["a"], []) == (here.remote_workers, there.remote_workers, world.lost)

    in_world(scenario)


def test_outage_ends_leniency():
    """Who does not come back after an outage is lost one lease time later."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        await add(there, "w")
        await here.beat()
        world.store.is_away = True
        await world.pass_time(2 * LEASE_S, here)
        world.store.is_away = False
        await world.pass_time(LEASE_S - HEARTBEAT_S, here)
        assert "w" in here
        await world.pass_time(3 * HEARTBEAT_S, here)
        assert [("here", "w")] == [change[:2] for change in world.lost]

    in_world(scenario)


def test_empty_store_is_refilled():
    """After a restart of the broker with nothing, holders put their leases back unnoticed."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        await add(here, "a")
        await add(there, "b")
        await here.beat()
        world.store.forget()
        await world.pass_time(3 * LEASE_S, here, there)
        assert ["a", "b"] == [lease.name for lease in await world.store.leases()]
        assert ("b" in here, []) == (True, world.lost)

    in_world(scenario)


def test_restart_is_two_incarnations():
    """A worker that restarts unseen is lost and ready again, each under its own incarnation."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        incarnations = []

        async def note(data):
            incarnations.append(data.incarnation)

        here.watch("w", note)
        first = await add(there, "w")
        await here.beat()
        await world.store.release([first.incarnation])
        second = await add(there := world.registry("again"), "w")
        await here.beat()
        await until(lambda: len(incarnations) == 2)
        assert [first.incarnation, second.incarnation] == incarnations
        assert ("here", "w", "replaced by a new incarnation") in world.lost

    in_world(scenario)


def test_w16_slow_watcher_is_alone():
    """A watcher that hangs delays neither the heartbeat nor the next watcher."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        called = asyncio.Event()

        async def hang(data):
            await asyncio.Event().wait()

        async def fail(data):
            raise LookupError

        async def note(data):
            called.set()

        for handler in (hang, fail, note):
            here.watch("w", handler)
        await add(there, "w")
        await here.beat()
        await happens(called)
        await world.pass_time(LEASE_S, here, there)
        await here.stop()
        assert "w" in here

    in_world(scenario)


def test_watch_fires_at_once():
    """A watch for a worker that is ready already is called, too."""

    async def scenario(world):
        here, seen = world.registry(), asyncio.Event()
        await add(here, "x.1")

        async def note(data):
            seen.set()

        here.watch("x", note)
        await happens(seen)

    in_world(scenario)


def test_wait_ready_leaves_nothing():
    """Waiting for a worker, with and without success, leaves no watch behind."""

    async def scenario(world):
        here = world.registry()
        with pytest.raises(WorkerNotFoundError, match=r"'w' was registered within 0\.01 s"):
            await here.wait_ready("w", 0.01)
        waiting = asyncio.create_task(here.wait_ready("w", PATIENCE_S))
        await asyncio.sleep(0)
        lease = await add(here, "w")
        assert lease.incarnation == (await waiting).incarnation
        assert lease.incarnation == (await here.wait_ready("w", 0.0)).incarnation
        assert [] == here._watches.ready.all()

    in_world(scenario)


def test_forged_announcement_vanishes():
    """A worker that is announced but has no lease is gone after the next heartbeat."""

    async def scenario(world):
        here = world.registry()
        await here.beat()
        forged = WorkerRegistryEntry(name="fake", incarnation="x.1", runner="nobody")
        here.on_announcement(
            BusWorkerRegistryMessage(source="evil", runner="nobody", workers=(forged,))
        )
        assert "fake" in here
        await here.beat()
        assert "fake" not in here

    in_world(scenario)


def test_announcement_cannot_end_own():
    """Nobody's announcement removes a worker of this runner."""

    async def scenario(world):
        here = world.registry()
        lease = await add(here, "w")
        gone = WorkerRegistryEntry(
            name="w", incarnation=lease.incarnation, runner="here", ready=False, gone="says evil"
        )
        here.on_announcement(
            BusWorkerRegistryMessage(source="evil", runner="here", workers=(gone,))
        )
        assert "w" in here

    in_world(scenario)


def test_children_stay_local():
    """A child is found and watched in its runner, and neither leased nor announced."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        here.add_child(here.new_lease("kid"))
        assert "kid" not in here
        await here.set_ready("kid")
        await here.set_active("kid", active=False)
        await there.beat()
        assert (["kid"], False) == (here.local_workers, "kid" in there)
        assert [] == await world.store.leases()
        assert not here.get("kid").active
        with pytest.raises(DuplicateWorkerError):
            here.add_child(here.new_lease("kid"))
        await here.unregister("kid", "ended")
        await asyncio.sleep(0)
        assert [("here", "kid", "ended")] == world.lost

    in_world(scenario)


def test_activation_is_remembered():
    """The last activation of a worker is there for its next incarnation, in the same session only."""

    async def scenario(world):
        here = world.registry("here", session="one")
        await add(here, "w", active=False)
        await here.set_active("w", active=True, args={"n": 1})
        expected = Activation(session="one", active=True, args={"n": 1})
        assert expected == await world.registry("next", session="one").last_activation("w")
        assert await world.registry("next", session="two").last_activation("w") is None

    in_world(scenario)


def test_activation_survives_outage():
    """An activation that the store could not take is stored with a later heartbeat."""

    async def scenario(world):
        here = world.registry()
        await add(here, "w", active=False)
        world.store.is_away = True
        await here.set_active("w", active=True)
        world.store.is_away = False
        assert await here.last_activation("w") is None
        await here.beat()
        assert (await here.last_activation("w")).active

    in_world(scenario)


def test_leases_carry_counters():
    """A heartbeat writes what the worker received and sent, and that it is alive."""

    async def scenario(world):
        here = world.registry()
        lease = here.new_lease("w", jobs=("search",))
        await here.register(lease, lambda: WorkerFigures(sent=7))
        await here.set_ready("w")
        await here.beat()
        (stored,) = await world.store.leases()
        assert (7, 0, ("search",), "ready") == (
            stored.sent, stored.received, stored.jobs, stored.state,
        )  # fmt: skip
        assert stored.beat >= lease.beat

    in_world(scenario)


def test_stopping_takes_no_work():
    """A worker that is stopping is not found, and not lost before it has left."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        await add(here, "w")
        await there.beat()
        await here.set_stopping("w")
        await there.beat()
        assert (False, []) == ("w" in there, world.lost)

    in_world(scenario)


def test_renewal_behind_release():
    """A heartbeat under way while a worker leaves does not bring its lease back."""

    async def scenario(world):
        here, let_go = world.registry(), asyncio.Event()
        await add(here, "w")
        renew = world.store.renew

        async def slow_renew(leases: list[Lease], *, version: int = -1):
            await let_go.wait()
            return await renew(leases, version=version)

        world.store.renew = slow_renew
        beating = asyncio.create_task(here.beat())
        await asyncio.sleep(0)
        leaving = asyncio.create_task(here.unregister("w", "ended"))
        await asyncio.sleep(0)
        let_go.set()
        await asyncio.gather(beating, leaving)
        assert [] == await world.store.leases()

    in_world(scenario)


def test_incarnations_are_no_prefixes():
    """No incarnation is the beginning of another, since stores release by prefix."""
    registry = WorkerRegistry("r", AsyncQueueBus())
    incarnations = [registry.new_lease("w").incarnation for _ in range(300)]
    assert 300 == len(set(incarnations))
    assert 1 == len({len(incarnation) for incarnation in incarnations})


def test_announced_survive_restart():
    """A worker that was only announced when the broker restarted empty is not lost either."""

    async def scenario(world):
        here, there = world.registry("here"), world.registry("there")
        await add(there, "w")
        await here.beat()
        lease = await add(there, "new")
        here.on_announcement(
            BusWorkerRegistryMessage(
                source="there", runner="there", workers=(entry_of(lease_of(lease)),)
            )
        )
        world.store.forget()
        await here.beat()  # before the others
        await world.pass_time(2 * LEASE_S, there, here)
        assert (["new", "w"], []) == (here.remote_workers, world.lost)

    in_world(scenario)


def lease_of(lease):
    """The lease as it is once its worker is ready."""
    return structs.replace(lease, state="ready")
