"""What a store of leases tells a reader that knows an earlier state: the differences."""

import msgspec
import pytest

from pbus.bus import memory_leases
from pbus.bus.redis.leases import KEYS_LIVE_MS
from pbus.leases import LEASE_S, WITHOUT_READING, Lease, Renewal, Since
from pbus.registry.own_leases import UNREAD
from pbus.registry.table import entry_of
from support.lease_helpers import MemoryLeases, PgLeases, RedisLeases
from support.waiting import run


def lease(name: str, incarnation: str = "", **fields) -> Lease:
    """A lease with what a test does not care about filled in."""
    incarnation = incarnation or f"one.{name}"
    return Lease(name=name, incarnation=incarnation, runner="runner", host="here", pid=1, **fields)


class Reader:
    """Knows the states of leases, as a registry does."""

    def __init__(self, store, *, is_brief=False):
        self.store = store
        self.is_brief = is_brief
        self.known = {}
        self.since = UNREAD if is_brief else -1
        self.told = None

    async def read(self, *names) -> Renewal:
        """Take in what is new, and those names in any case."""
        since = self.since
        if isinstance(since, Since):
            since = msgspec.structs.replace(since, names=names)
        renewal = self.told = await self.store.renew([], version=since)
        self.since = Since(renewal.version, renewal.epoch, is_brief=self.is_brief)
        if renewal.leases is None:
            return renewal
        if renewal.absent is None:
            self.known.clear()
        for name in renewal.absent or ():
            self.known.pop(name, None)
        self.known |= {one.name: (one.incarnation, one.state) for one in renewal.leases}
        return renewal

    async def is_right(self) -> bool:
        """Whether it knows what the store has."""
        held = await self.store.leases()
        return self.known == {one.name: (one.incarnation, one.state) for one in held}


def test_reader_knows_what_the_store_has(make_leases):
    """Claims, changes, releases and new holders, in any order between two readings."""

    async def main():
        async with make_leases() as store, make_leases() as there:
            reader, late, brief = Reader(there), Reader(store), Reader(there, is_brief=True)
            await store.renew([lease(f"w{number}") for number in range(9)])
            await reader.read()
            assert await reader.is_right()
            await brief.read()
            await store.renew([lease("w1", state="ready"), lease("w2")])
            await store.release(["one.w3", "one.w4"], names=["w3", "w4"])
            await store.claim(lease("w3", "two"))
            await reader.read()
            assert await reader.is_right()
            await store.renew([lease("w5", beat=1.0)])
            assert (await reader.read()).leases is None
            await late.read()
            await store.release(["two"])
            await store.renew([lease("w5", state="stopping"), lease("w9")])
            await store.release(["one.w9"], names=["w9"])
            for one in (reader, late, brief):
                await one.read()
                assert await one.is_right()

    run(main())


def test_names_are_read_in_any_case(make_leases):
    """A name that was announced is looked at though nothing changed: it may be there, or not."""

    async def main():
        async with make_leases() as store:
            reader = Reader(store)
            await store.renew([lease("x"), lease("y")])
            await reader.read()
            told = await reader.read("x", "unknown")
            assert "x" in {one.name for one in told.leases}
            assert told.absent is None or ["unknown"] == told.absent
            assert await reader.is_right()

    run(main())


def test_brief_reading_has_what_a_registry_needs(make_leases):
    """Of each lease, read alone or with all: who it is, and its state, whatever else stands in it."""

    async def main():
        fields = {"state": "ready", "active": False, "started_at": 1700000000.1234567}
        odd = Lease(name="x", incarnation="p.1", runner="a|b c", host="far", pid=7, **fields)
        async with make_leases() as store:
            await store.renew([lease("y")])
            reader = Reader(store, is_brief=True)
            await reader.read()
            await store.renew([odd])
            few = (await reader.read()).leases
            all_ = (await store.renew([], version=UNREAD)).leases
            assert [["x"], ["x", "y"]] == [[one.name for one in told] for told in (few, all_)]
            for told in (few[0], all_[0]):
                assert entry_of(odd) == entry_of(told)
            assert "far" == (await store.leases())[0].host

    run(main())


def test_released_leases_are_told_as_absent(make_leases):
    """A reader of differences is told which names have no lease any more, each once."""

    async def main():
        async with make_leases() as store:
            await store.renew([lease("stays"), lease("goes", "p.1"), lease("moves", "p.2")])
            reader = Reader(store)
            await reader.read()
            await store.release(["p."])
            await store.claim(lease("moves", "q"))
            told = await reader.read()
            assert (["goes"], ["moves"]) == (told.absent, [one.name for one in told.leases])
            assert (await reader.read()).leases is None

    run(main())


@pytest.mark.pgmq
def test_changes_without_a_note_are_read_on_postgres(channel, shared_database):
    """A change by functions of an earlier pbus, and the forgetting of old ones, have all leases read."""

    async def main():
        async with PgLeases(shared_database, channel)() as store:
            await store.renew([lease("x"), lease("y")])
            reader, early = Reader(store), Reader(store)
            await reader.read()
            await early.read()
            sql = "UPDATE pbus.membership SET version = version + 1 WHERE channel = $1"
            await store._link.call(sql, channel)
            assert (await reader.read()).absent is None
            await store.renew([lease("y", state="ready")])  # the notes begin again
            assert (await early.read()).absent is None
            await reader.read()
            await store.renew([lease("x", state="stopping")])
            assert [] == (await reader.read()).absent
            assert await reader.is_right()
            jump = "UPDATE pbus.membership SET version = $2, noted = $2 WHERE channel = $1"
            await store._link.call(jump, channel, 4_000_001_999_999)
            await store.release(["one.y"])  # the thousandth change: what is old is forgotten
            assert (await reader.read()).absent is None
            assert await reader.is_right()
            sql = "SELECT name FROM pbus.lease_change WHERE channel = $1 ORDER BY 1"
            assert ["x", "y"] == [row[0] for row in await store._link.call(sql, channel)]
            await store._link.call(jump, channel, 4_000_004_999_999)
            await store.claim(lease("z"))
            assert ["x", "z"] == [row[0] for row in await store._link.call(sql, channel)]

    run(main())


def test_renewal_without_reading(make_leases):
    """Who wants no leases gets none, whatever changed; the holder of a taken name is told."""

    async def main():
        async with make_leases() as store:
            await store.claim(lease("x", "other"))
            renewal = await store.renew([lease("x"), lease("y")], version=WITHOUT_READING)
            assert (None, ["x"]) == (renewal.leases, renewal.refused)
            assert "other" == renewal.holders["x"].incarnation
            assert ["other", "one.y"] == [one.incarnation for one in await store.leases()]

    run(main())


def test_release_by_name_is_of_the_incarnation(make_leases):
    """The lease of a successor stays, and so do those of other names."""

    async def main():
        async with make_leases() as store:
            await store.renew([lease("x", "p.2"), lease("y", "p.1"), lease("z", "p.1")])
            await store.release(["p.1"], names=["x", "y"])
            left = [one.name for one in await store.leases()]
            assert "x" in left
            assert "y" not in left

    run(main())


def test_forgotten_changes_are_read_in_full(monkeypatch):
    """A reader from before the changes that are known gets all leases."""
    monkeypatch.setattr(memory_leases, "_MOST_GONE", 3)

    async def main():
        async with MemoryLeases()() as store:
            reader = Reader(store)
            await store.claim(lease("stays"))
            await reader.read()
            for number in range(20):
                await store.claim(lease(f"w{number}", f"p{number}"))
                await store.release([f"p{number}"])
            assert (await reader.read()).absent is None
            assert await reader.is_right()
            assert len(store._changes) <= 5

    run(main())


def test_what_expired_comes_with_all_leases(make_leases):
    """A lease that ran out may be a copy of a live one: its remover gets all, whatever it asked for."""

    async def main():
        async with make_leases() as store:
            await store.claim(lease("old"))
            await make_leases.pass_time(store, LEASE_S + 1)
            await store.claim(lease("live"))
            known = await store.renew([lease("live")], version=WITHOUT_READING)
            assert ["old"] == [one.name for one in known.expired]
            assert "live" in {one.name for one in known.leases or [lease("live")]}
            assert known.absent is None

    run(main())


async def redis_of(store):
    """The client and the keys of a store on Redis."""
    leases, workers, version, changes = store._all_keys
    return store._redis, leases, workers, version, changes


@pytest.mark.redis
def test_keys_of_leases_end_a_day_after_their_use(channel, valkey):
    """Every key ends by itself, those that were made later, too; a renewal half a day later prolongs them."""

    async def main():
        async with RedisLeases(valkey.url, channel)() as store:
            redis, *keys = await redis_of(store)
            half_ms = KEYS_LIVE_MS // 2
            await store.claim(lease("x"))
            await store.renew([lease("x")])
            assert all([half_ms < await redis.pttl(key) for key in keys])
            for key in keys:
                await redis.pexpire(key, half_ms - 1)
            await store.renew([lease("x")])
            assert all([half_ms < await redis.pttl(key) for key in keys])
            await redis.delete(*keys)
            await store.renew([lease("x", state="ready")])
            assert all([half_ms < await redis.pttl(key) for key in keys])
            await redis.pexpire(keys[0], half_ms + 60_000)
            await store.renew([lease("x", state="ready")])
            assert half_ms + 60_000 >= await redis.pttl(keys[0])  # no write for each renewal

    run(main())


@pytest.mark.redis
def test_changes_of_another_version_of_pbus_are_read(channel, valkey):
    """A process that counts a change without a note is noticed, and so is a store that came back empty."""

    async def main():
        async with RedisLeases(valkey.url, channel)() as store:
            reader = Reader(store)
            redis, leases, workers, version, changes = await redis_of(store)
            await store.renew([lease("x"), lease("y")])
            await reader.read()
            body = await redis.hget(workers, "x")
            short = body.replace(b"|1|0.0|runner\n", b"|1\n")  # as their heads are
            assert short != body
            await redis.hset(workers, "x", short)
            told = (await store.renew([], version=UNREAD)).leases
            assert [entry_of(lease("x")), entry_of(lease("y"))] == [entry_of(one) for one in told]
            await redis.hset(workers, "x", body.replace(b"|starting|", b"|ready|"))
            await redis.incr(version)  # as processes without notes do
            assert (await reader.read()).absent is None
            await store.renew([lease("y", state="ready")])
            assert (await reader.read()).absent is None  # the notes began again
            assert await reader.is_right()
            await store.renew([lease("x", state="stopping")])
            assert [] == (await reader.read()).absent
            assert await reader.is_right()

            before = reader.since.version
            await redis.delete(leases, workers, version, changes)
            for number in range(before + 2):
                await store.claim(lease(f"new{number}"))
            assert (await reader.read()).absent is None
            assert reader.since.version > before
            assert await reader.is_right()

    run(main())


@pytest.mark.redis
def test_notes_of_changes_are_bounded(channel, valkey):
    """Names that are gone are forgotten, and who knows only what was before gets all leases."""

    async def main():
        async with RedisLeases(valkey.url, channel)() as store:
            redis, *_, changes = await redis_of(store)
            old, reader = Reader(store), Reader(store)
            await store.claim(lease("stays"))
            await old.read()
            for start in range(0, 1_600, 100):
                names = [f"w{number}" for number in range(start, start + 100)]
                await store.renew([lease(name) for name in names], version=WITHOUT_READING)
                await reader.read()
                await store.release([f"one.{name}" for name in names], names=names)
            assert await redis.zcard(changes) <= 1_000 + 2 * 101 + 3
            assert (await old.read()).absent is None
            told = await reader.read()
            assert 100 == len(told.absent)
            assert await old.is_right()
            assert await reader.is_right()

    run(main())


@pytest.mark.redis
def test_notes_that_begin_again_at_once_are_others(channel, valkey):
    """A server may lose everything and have as many changes again within the same millisecond."""

    async def main():
        async with RedisLeases(valkey.url, channel)() as store:
            redis, *keys = await redis_of(store)
            epochs = set()
            for _ in range(20):
                await store.claim(lease("x"))
                epochs.add((await store.renew([], version=WITHOUT_READING)).epoch)
                await redis.delete(*keys)
            assert 20 == len(epochs)

    run(main())
