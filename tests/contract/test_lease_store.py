"""What every store of leases promises the registry."""

import asyncio
import time
import uuid

import pytest

from pbus.bus.memory_leases import MemoryLeaseStore
from pbus.bus.redis.leases import RedisLeaseStore
from pbus.errors import LeaseTooLargeError
from pbus.leases import MAX_LEASES, MAX_RECORD_BYTES, Activation, Lease, warn_unreadable_once
from pbus.observe import merge_rows, moved_clocks
from support.lease_helpers import MemoryLeases
from support.waiting import run

LEASE_S = 60.0


@pytest.fixture(autouse=True)
def long_leases(monkeypatch):
    """None runs out unless the test lets time pass."""
    for module in ("memory_leases", "redis.leases", "pgmq.leases"):
        monkeypatch.setattr(f"pbus.bus.{module}.LEASE_S", LEASE_S)


def lease(name: str, incarnation: str = "one", **fields) -> Lease:
    """A lease with what a test does not care about filled in."""
    return Lease(name=name, incarnation=incarnation, runner="runner", host="here", pid=1, **fields)


def test_claim_refuses_a_second_holder(make_leases):
    """A name belongs to one incarnation at a time; the second is told who has it."""

    async def main():
        async with make_leases() as here, make_leases() as there:
            assert await here.claim(lease("x", args={"text": "a\0b"})) is None
            held = await there.claim(lease("x", "two"))
            assert await here.claim(lease("x")) is None

            assert ("one", {"text": "a\0b"}) == (held.incarnation, held.args)

    run(main())


def test_concurrent_claims_have_one_winner(make_leases):
    """Of many that want one name at once exactly one gets it."""

    async def main():
        async with make_leases() as here, make_leases() as there:
            claims = [
                store.claim(lease("x", f"{number}"))
                for number, store in enumerate([here, there] * 5)
            ]
            found = await asyncio.gather(*claims)

            assert 1 == found.count(None)
            assert 1 == len({one.incarnation for one in found if one is not None})

    run(main())


def test_renewal_says_what_changed(make_leases):
    """The leases are listed when the membership is another than the caller knew."""

    async def main():
        async with make_leases() as store:
            first = await store.renew([lease("b"), lease("a")])
            same = await store.renew([lease("a", beat=2.0)], version=first.version)
            other = await store.renew([lease("a", state="ready")], version=first.version)

            assert ["a", "b"] == [one.name for one in first.leases]
            assert (first.version, None) == (same.version, same.leases)
            assert "ready" == other.leases[0].state
            assert first.version != other.version

    run(main())


def test_renewal_is_refused_for_taken_names(make_leases):
    """Who lost a name meanwhile hears of it, and changes nothing."""

    async def main():
        async with make_leases() as store:
            await store.claim(lease("x", "new"))
            renewal = await store.renew([lease("x", "old"), lease("y", "old")])

            assert ["x"] == renewal.refused
            assert ["new", "old"] == [one.incarnation for one in await store.leases()]

    run(main())


def test_release_goes_by_process(make_leases):
    """All leases whose incarnation begins with that of a process fall, and no others."""

    async def main():
        async with make_leases() as store:
            await store.renew([lease("a", "p1.1"), lease("b", "p1.2"), lease("c", "p2.1")])
            released = await store.release(["p1", "p%", "p_"])

            assert ["a", "b"] == sorted(one.name for one in released)
            assert ["c"] == [one.name for one in await store.leases()]
            assert [] == await store.release(["p1"])
            assert [] == await store.release([])

    run(main())


def test_silent_leases_expire(make_leases):
    """A lease that is not renewed ends; its remover learns of it once, and renewing prevents it."""

    async def main():
        async with make_leases() as store:
            await store.renew([lease("kept", "p1"), lease("lost", "p2")])
            await store.extend(["p1"])
            await make_leases.pass_time(store, LEASE_S / 2)
            await store.extend(["p1"])
            await make_leases.pass_time(store, LEASE_S / 2 + 0.1)
            assert ["kept"] == [one.name for one in await store.leases()]
            renewal = await store.renew([])

            assert ["lost"] == [one.name for one in renewal.expired]
            assert ["kept"] == [one.name for one in renewal.leases]
            assert [] == (await store.renew([])).expired
            assert await store.claim(lease("lost", "p3")) is None

    run(main())


def test_expired_name_can_be_claimed(make_leases):
    """A name whose lease ran out is free, even before it is removed."""

    async def main():
        async with make_leases() as store:
            await store.claim(lease("x", "old"))
            await make_leases.pass_time(store, LEASE_S + 0.1)

            assert await store.claim(lease("x", "new")) is None

    run(main())


def test_activation_is_remembered(make_leases):
    """The last activation of a name is given back, none is None."""

    async def main():
        async with make_leases() as store:
            told = Activation(session="s", active=False, args={"deep": [1, {"x": None}]})
            await store.set_activation("x", Activation())
            await store.set_activation("x", told)

            assert told == await store.activation("x")
            assert await store.activation("y") is None

    run(main())


def test_records_live_for_their_time(make_leases):
    """A record is bytes, replaced by its key, gone after its time or when dropped."""

    async def main():
        async with make_leases() as store:
            await store.put_record("a", b"old", ttl_s=90)
            await store.put_record("a", b"\x00\xff", ttl_s=90)
            await store.put_record("b", b"b", ttl_s=30)
            await store.put_record("c", b"c", ttl_s=90)
            await store.drop_record("c")
            assert {"a": b"\x00\xff", "b": b"b"} == await store.records()
            await make_leases.pass_time(store, 30.1)

            assert {"a": b"\x00\xff"} == await store.records()

    run(main())


def test_channels_are_apart(make_leases):
    """Leases of another channel are not seen, nor do its names clash."""

    async def main():
        async with make_leases() as store, make_leases(suffix="x") as other:
            await store.claim(lease("x"))

            assert [] == await other.leases()
            assert await other.claim(lease("x", "two")) is None
            assert [] == await other.release(["one"])

    run(main())


def test_many_start_at_once(make_leases):
    """However many ask at the same time, each gets an answer."""

    async def main():
        async with make_leases() as store:
            names = [f"w{number:03}" for number in range(60)]
            claims = await asyncio.gather(*(store.claim(lease(name, name)) for name in names))
            await asyncio.gather(*(store.release([name]) for name in names[1:]))

            assert [None] * 60 == claims
            assert ["w000"] == [one.name for one in await store.leases()]

    run(main())


def test_many_incarnations_are_kept_and_released(make_leases):
    """Incarnations are meant by what they begin with, of whatever lengths."""

    async def main():
        async with make_leases() as store:
            for name, incarnation in (("a", "one-1"), ("b", "one-2"), ("c", "two"), ("d", "thr")):
                await store.claim(lease(name, incarnation))
            await make_leases.pass_time(store, LEASE_S - 1)
            await store.extend(["one", "two"])
            await make_leases.pass_time(store, 2)
            assert ["a", "b", "c"] == [one.name for one in await store.leases()]

            released = await store.release(["one-1", "tw", "x"])
            assert ["a", "c"] == [one.name for one in released]
            assert ["b"] == [one.name for one in await store.leases()]

    run(main())


@pytest.mark.parametrize("ahead_s", [10.0, 120.0, -10.0, -120.0])
def test_only_the_store_has_a_clock(make_leases, ahead_s):
    """A worker of a host whose clock is wrong beats, and is as old as it is; the reader is told."""

    def moved(beat_ago_s: float = 0.0) -> Lease:
        then = time.time() + ahead_s
        return lease("x", started_at=then - 30, beat=then - beat_ago_s)

    async def main():
        async with make_leases() as here, make_leases() as there:
            assert await here.claim(moved()) is None
            claimed = await there.leases()
            renewal = await here.renew([moved()])
            (holder,) = [await there.claim(lease("x", "two"))]
            released = await there.release(["one"])
            now = time.time()

        for found in (claimed[0], renewal.leases[0], holder, released[0]):
            (row,) = merge_rows([found], [], now)
            assert ("starting", 30) == (row.state, pytest.approx(row.uptime_s, abs=2))
            assert ahead_s == pytest.approx(found.ahead_s, abs=2)
        said = moved_clocks(claimed)["here"]
        direction = "ahead of" if ahead_s > 0 else "behind"
        assert f"the clock of here is {abs(ahead_s):.0f} s {direction} this one's" in said

    if not isinstance(make_leases, MemoryLeases):  # that of one process
        run(main())


def test_too_large_lease_is_its_owners_error(make_leases, caplog):
    """Thousands of job names are refused where they are; large arguments are left out, and it is said."""

    async def main():
        async with make_leases() as store:
            if isinstance(store, MemoryLeaseStore):
                return  # it carries nothing
            jobs = tuple(f"job_{number:060}" for number in range(2_000))
            with pytest.raises(
                LeaseTooLargeError, match=r"the lease of worker 'x' is 1[0-9,]+ bytes"
            ):
                await store.claim(lease("x", jobs=jobs))
            assert [] == await store.leases()
            name = f"y{uuid.uuid4().hex}"  # it is said once a name
            assert await store.claim(lease(name, args={"text": "x" * 100_000})) is None
            assert [(name, None)] == [(one.name, one.args) for one in await store.leases()]
            assert f"the lease of '{name}' has no room" in caplog.text
            with pytest.raises(LeaseTooLargeError, match="the record of 'up'"):
                await store.put_record("up", b"x" * (MAX_RECORD_BYTES + 1), ttl_s=5)

    run(main())


def test_invented_leases_are_not_read(make_leases, monkeypatch, caplog):
    """What is too large, or comes after so many that end sooner, is left out; a real one never is."""
    warn_unreadable_once.cache_clear()

    async def main():
        async with make_leases() as store:
            if isinstance(store, MemoryLeaseStore):
                return
            await store.claim(lease("real"))
            seen = (await store.renew([])).version
            await invent(store, "large", 2_000_000, ends_s=1e6)
            assert ["real"] == [one.name for one in await store.leases()]
            assert "that of 'large' has more than 65,536 bytes" in caplog.text
            renewal = await store.renew([lease("real")])
            assert ["real"] == [one.name for one in renewal.leases]
            assert seen <= renewal.version
            assert await store.claim(lease("large", "mine")) is None  # no owner of pbus wrote that
            assert ["large", "real"] == [one.name for one in await store.leases()]

            await invent(store, "many", 100, ends_s=1e6, count=MAX_LEASES + 5)
            assert ["large", "real"] == [one.name for one in await store.leases()]
            assert f"the channel has more than {MAX_LEASES:,} leases" in caplog.text
            assert ["large", "real"] == [one.name for one in (await store.renew([])).leases]

    run(main())


async def invent(store, name, size, *, ends_s, count=1):
    """Write leases as a stranger would."""
    names = [f"{name}{number}" if count > 1 else name for number in range(count)]
    if isinstance(store, RedisLeaseStore):
        leases, workers, _ = store._keys
        value = "a|ready|1\n1\n" + "x" * size
        async with store._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(leases, dict.fromkeys(names, (time.time() + ends_s) * 1000))
            pipe.hset(workers, mapping=dict.fromkeys(names, value))
            await pipe.execute()
        return
    sql = """INSERT INTO pbus.lease SELECT $1, n, 'a', 'a|ready|1', repeat('x', $3),
      clock_timestamp() + $4::float8 * interval '1 s' FROM unnest($2::text[]) n"""
    await store._link.call(sql, store._channel, names, size, ends_s)


def test_counts_live_for_their_time(make_leases):
    """They are read all at once or one by one, apart from the records of supervisors."""

    async def main():
        async with make_leases() as store, make_leases("other") as other:
            await store.put_stats("a", b"old", ttl_s=90)
            await store.put_stats("a", b"\x00\xff", ttl_s=90)
            await store.put_stats("b", b"b", ttl_s=30)
            assert {"a": b"\x00\xff", "b": b"b"} == await store.stats()
            assert {"b": b"b"} == await store.stats("b")
            assert {} == await store.stats("c")
            assert {} == await store.records() == await other.stats()

            await make_leases.pass_time(store, 60)
            assert {"a": b"\x00\xff"} == await store.stats()

    run(main())
