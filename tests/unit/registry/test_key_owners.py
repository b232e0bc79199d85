"""The owners of keys as one process sees them: which replicas count, what is remembered, and when it is read."""

import asyncio

import pytest

from pbus.bus import AsyncQueueBus
from pbus.bus.queues.store import QueueStats
from pbus.errors import BusUnavailableError
from pbus.messages import WorkerRegistryEntry
from pbus.registry import key_owners
from pbus.registry.directory import Directory
from pbus.registry.key_owners import KeyOwners
from pbus.routing_keys import owner_of
from support.waiting import run, until

KEYS = [f"k{number}" for number in range(50)]


class Index:
    """The queues of a broker; `down` answers that it is away come first."""

    def __init__(self, *names, down=0):
        self.names = list(names)
        self.down = down
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def stats(self, *, names_only):
        assert names_only
        self.reads += 1
        await self.gate.wait()
        if self.down:
            self.down -= 1
            raise BusUnavailableError("the broker", "a test")
        return [QueueStats(name=name) for name in self.names]


class View:
    """A directory, a bus and the owners of keys."""

    def __init__(self, index=None):
        self.directory = Directory()
        self.bus = AsyncQueueBus()
        self.bus.queues = index
        self.tasks = []
        self.owners = KeyOwners(self.directory, self.bus, self._spawn)

    def _spawn(self, work, name):
        self.tasks.append(asyncio.create_task(work, name=name))

    def announce(self, name, incarnation=None, **fields):
        incarnation = incarnation or f"p.{name}"
        entry = WorkerRegistryEntry(name=name, incarnation=incarnation, runner="r", **fields)
        self.directory._table.apply_announcement(entry)

    async def spread(self, name="x"):
        """The owners of all keys."""
        found = {await self.owners.owner(name, key) for key in KEYS}
        await asyncio.gather(*self.tasks)
        return found


def test_ready_and_active_replicas_own_keys():
    """At most once; where none is, the ready ones, whose rejection is better than silence."""

    async def main():
        view = View()
        assert {None} == await view.spread()
        view.announce("x.1")
        view.announce("x.2", ready=False)
        view.announce("x.3", active=False)
        view.announce("x.10")
        view.announce("y.1")
        assert {"x.1", "x.10"} == await view.spread()
        view.announce("x.2")
        assert {"x.1", "x.2", "x.10"} == await view.spread()
        for name in ("x.1", "x.2", "x.10"):
            view.announce(name, gone="a test")
        assert {"x.3"} == await view.spread()
        assert {"y.1"} == await view.spread("y")
        assert {None} == await view.spread("x.3")

    run(main())


def test_a_worker_of_just_that_name_comes_first():
    """Then there is nothing to choose, whatever its replicas are."""

    async def main():
        for index in (None, Index("x", "x.1")):
            view = View(index)
            view.announce("x.1")
            assert {"x.1"} == await view.spread()
            view.announce("x")
            assert {None} == await view.spread()
            view.announce("x", gone="a test")
            assert {"x.1"} == await view.spread()

    run(main())


def test_replicas_with_queues_own_stored_keys():
    """At least once: there or not, starting or stopping; but not those that are inactive, or left so."""

    async def main():
        view = View(Index("x", "x.1", "x.2", "x.3", "y.1", "xx.1"))
        assert {"x.1", "x.2", "x.3"} == await view.spread()
        view.announce("x.1")
        view.announce("x.2", ready=False)
        assert {"x.1", "x.2", "x.3"} == await view.spread()
        view.announce("x.3", active=False)
        assert {"x.1", "x.2"} == await view.spread()
        view.announce("x.3", active=False, gone="a test")
        assert {"x.1", "x.2"} == await view.spread()
        view.announce("x.3", incarnation="q.x.3")
        view.announce("x.3", incarnation="q.x.3", gone="a test")
        assert {"x.1", "x.2", "x.3"} == await view.spread()
        for name in ("x.1", "x.2", "x.3"):
            view.announce(name, incarnation=f"r.{name}", active=False)
        assert {"x.1", "x.2", "x.3"} == await view.spread()

    run(main())


def test_a_change_is_heard_of_at_once():
    """Deactivation needs no look at the broker; what came to the broker is seen soon after any news."""

    async def main():
        index = Index("x.1", "x.2")
        view = View(index)
        await view.spread()
        assert 1 == index.reads
        await view.spread()
        assert 1 == index.reads
        index.names.append("x.3")
        view.announce("z")
        await view.spread()
        await until(lambda: index.reads == 2)
        assert {"x.1", "x.2", "x.3"} == await view.spread()

    run(main())


def test_the_queues_are_read_again_from_time_to_time(monkeypatch):
    """Without any news, while keys are used; by one task at a time."""

    async def main():
        index = Index("x.1", "x.2")
        view = View(index)
        await view.spread()
        monkeypatch.setattr(key_owners, "READ_EVERY_S", 0.0)
        index.names.remove("x.1")
        index.gate.clear()
        assert {"x.1", "x.2"} == {await view.owners.owner("x", key) for key in KEYS}
        index.gate.set()
        await asyncio.gather(*view.tasks)
        assert 2 == index.reads
        assert {"x.2"} == {await view.owners.owner("x", key) for key in KEYS}
        await asyncio.gather(*view.tasks)

    run(main())


def test_callers_keep_their_order_at_the_first_reading():
    """One that comes when the queues have just become known does not pass those that still wait."""

    async def main():
        index = Index("x.1")
        index.gate.clear()
        view, order = View(index), []

        async def ask(number):
            await view.owners.owner("x", "k")
            order.append(number)

        tasks = [asyncio.create_task(ask(number)) for number in range(5)]
        await until(lambda: index.reads == 1)
        index.gate.set()
        for number in range(5, 10):
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(ask(number)))
        await asyncio.gather(*tasks)
        assert list(range(10)) == order

    run(main())


def test_a_broker_that_is_away_is_waited_for(monkeypatch):
    """At the first reading as long as a send may take; later what is known is used on."""
    monkeypatch.setattr(key_owners, "_RETRY_S", 0.0)

    async def main():
        view = View(Index("x.1", down=2))
        assert {"x.1"} == await view.spread()
        view.bus.queues.down = 1
        view.announce("z")
        assert {"x.1"} == await view.spread()
        away = View(Index("x.1", down=1_000))
        away.bus.send_timeout = 0.0
        with pytest.raises(BusUnavailableError):
            await away.owners.owner("x", "k")
        away.bus.queues.down = 0
        assert "x.1" == await away.owners.owner("x", "k")

    run(main())


def test_a_queue_that_is_gone_is_passed_over():
    """The message goes to the owner among those that are left, and counts as sent once."""

    async def main():
        index = Index("x.1", "x.2", "x.3")
        view, posts = View(index), []

        async def post(name):
            posts.append(name)
            if name in index.names:
                return True
            view.bus.counters.note_undelivered(name)
            return False

        key = next(key for key in KEYS if owner_of(key, index.names) == "x.3")
        await view.owners.owner("x", key)
        index.names.remove("x.3")
        other = owner_of(key, index.names)
        assert other == await view.owners.send("x", key, post)
        assert (["x.3", other], 0, {}) == (
            posts, view.bus.counters.undelivered, view.bus.counters.unreached
        )  # fmt: skip
        index.names.clear()
        assert "x" == await view.owners.send("x", key, post)
        assert (["x.3", other, other, "x"], 1, {"x": 1}) == (
            posts, view.bus.counters.undelivered, view.bus.counters.unreached
        )  # fmt: skip

    run(main())


def test_a_name_without_queue_is_tried_once():
    """It reached no process, and counts as such."""

    async def main():
        view, posts = View(Index()), []

        async def post(name):
            posts.append(name)
            return False

        assert "x" == await view.owners.send("x", "k", post)
        assert ["x"] == posts

    run(main())


def test_what_is_remembered_has_bounds(monkeypatch):
    """Of keys and of groups; the oldest is forgotten, and found again."""
    monkeypatch.setattr(key_owners, "_MOST_KEYS", 3)
    monkeypatch.setattr(key_owners, "_MOST_GROUPS", 2)

    async def main():
        view = View()
        for name in ("x.1", "x.2", "x.3"):
            view.announce(name)
        for _ in range(2):
            for key in KEYS:
                assert owner_of(key, ["x.1", "x.2", "x.3"]) == await view.owners.owner("x", key)
        assert 3 == len(view.owners._groups["x"]._owners)
        for number in range(5):
            await view.owners.owner(f"absent{number}", "k")
        assert ["absent3", "absent4"] == list(view.owners._groups)

    run(main())


def test_version_grows_with_changes_only():
    """A heartbeat that says the same makes nothing to be found again."""

    async def main():
        view = View()
        view.announce("x.1")
        seen = view.directory.version
        view.announce("x.1")
        assert seen == view.directory.version
        for fields in ({"active": False}, {"active": True}, {"gone": "a test"}):
            view.announce("x.1", **fields)
            assert seen < view.directory.version
            seen = view.directory.version

    run(main())
