"""What others write into the registry's keys and tables: no lease is taken, no call fails."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import redis

from pbus.bus.pgmq import Endpoint as PgEndpoint
from pbus.bus.pgmq import HealingConnection, PgLeaseStore
from pbus.bus.redis.keys import Keys
from pbus.bus.redis.leases import RedisLeaseStore
from pbus.bus.redis.server.endpoint import Endpoint
from pbus.leases import Lease, LeaseStore
from pbus.seal import NO_SEAL, KeySeal, Seal
from support.postgres import query
from support.valkey import Valkey
from support.waiting import run

KEY = "a-key-for-the-registry"
REAL = Lease(name="clerk", incarnation="real1", runner="r", host="h", pid=1, state="ready")
FORGED = Lease(name="clerk", incarnation="evil1", runner="evil", host="h", pid=2, state="ready")
Stores = Callable[[Seal], contextlib.AbstractAsyncContextManager[LeaseStore]]


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("pgmq", marks=pytest.mark.pgmq),
    ]
)
def stores(request: pytest.FixtureRequest, channel: str) -> Stores:
    """Makes stores of one channel, by their seal."""
    is_redis = request.param == "redis"
    url = (
        request.getfixturevalue("valkey").url
        if is_redis
        else request.getfixturevalue("shared_database")
    )

    @contextlib.asynccontextmanager
    async def on_redis(seal: Seal) -> AsyncIterator[LeaseStore]:
        endpoint = Endpoint(url=url, redis=None)
        store = RedisLeaseStore(endpoint, Keys(channel), seal)
        try:
            yield store
        finally:
            await store.close()

    @contextlib.asynccontextmanager
    async def on_pgmq(seal: Seal) -> AsyncIterator[LeaseStore]:
        link = HealingConnection(PgEndpoint(dsn=url), "test")
        try:
            yield PgLeaseStore(link, channel, seal)
        finally:
            await link.close()

    return on_redis if is_redis else on_pgmq


def test_no_name_is_taken_without_the_key(stores: Stores, channel: str):
    """A forged lease neither keeps a worker from its name nor takes it away, and is not seen."""

    async def main() -> None:
        seal = KeySeal([KEY], channel)
        async with stores(seal) as ours, stores(seal) as others, stores(NO_SEAL) as burglar:
            assert None is await burglar.claim(FORGED)
            assert [] == await others.leases()
            assert None is await ours.claim(REAL)

            await burglar.release(["real1"])  # what a broker lets all do who reach it
            assert None is await burglar.claim(FORGED)
            renewal = await ours.renew([REAL])
            assert [] == renewal.refused
            assert ["real1"] == [lease.incarnation for lease in await others.leases()]

            rival = Lease(name="clerk", incarnation="other1", runner="o", host="h", pid=3)
            holder = await others.claim(rival)
            assert holder is not None
            assert "real1" == holder.incarnation
            assert ["clerk"] == (await others.renew([rival])).refused

    run(main())


def test_no_record_is_believed_without_the_key(stores: Stores, channel: str):
    """Nor an activation."""

    async def main() -> None:
        async with stores(KeySeal([KEY], channel)) as ours, stores(NO_SEAL) as burglar:
            await burglar.put_record("supervisor", b"{}", ttl_s=60)
            assert {} == await ours.records()
            await ours.put_record("supervisor", b"{1}", ttl_s=60)
            assert {"supervisor": b"{1}"} == await ours.records()

    run(main())


FAR = 9_000_000_000_000_000.0
MISHAPS: dict[str, Callable[[Any, str], object]] = {
    "no line": lambda c, k: (c.zadd(f"{k}:leases", {"bad": FAR}), c.hset(f"{k}:workers", "bad", "xx")),
    "no parts": lambda c, k: (c.zadd(f"{k}:leases", {"bad": FAR}), c.hset(f"{k}:workers", "bad", "x\ny\nz")),
    "empty": lambda c, k: (c.zadd(f"{k}:leases", {"bad": FAR}), c.hset(f"{k}:workers", "bad", "")),
    "ran out": lambda c, k: (c.zadd(f"{k}:leases", {"bad": 1}), c.hset(f"{k}:workers", "bad", "q")),
    "no lease": lambda c, k: c.zadd(f"{k}:leases", {"bad": FAR}),
    "version": lambda c, k: c.set(f"{k}:version", "abc"),
    "bytes": lambda c, k: (
        c.zadd(f"{k}:leases", {b"\xff": FAR}),
        c.hset(f"{k}:workers", b"\xff", b"\xff|\n1\n\xff"),
    ),
    "record": lambda c, k: (c.zadd(f"{k}:records", {b"\xff": FAR}), c.hset(f"{k}:record", b"\xff", b"\xff")),
    "type of leases": lambda c, k: (c.delete(f"{k}:leases"), c.set(f"{k}:leases", "x")),
    "type of workers": lambda c, k: (c.delete(f"{k}:workers"), c.rpush(f"{k}:workers", "x")),
    "type of version": lambda c, k: (c.delete(f"{k}:version"), c.rpush(f"{k}:version", "x")),
    "type of records": lambda c, k: (c.delete(f"{k}:records"), c.set(f"{k}:records", "x")),
    "type of record": lambda c, k: (c.delete(f"{k}:record"), c.set(f"{k}:record", "x")),
    "type of activations": lambda c, k: (c.delete(f"{k}:activations"), c.set(f"{k}:activations", "x")),
}  # fmt: skip


@pytest.mark.redis
@pytest.mark.parametrize("mishap", MISHAPS)
def test_no_value_stops_the_registry_on_redis(valkey: Valkey, channel: str, mishap: str):
    """Whatever stands in its keys, each call works, and the real lease is there after a beat."""

    async def main() -> None:
        store = RedisLeaseStore(Endpoint(url=valkey.url, redis=None), Keys(channel))
        assert None is await store.claim(REAL)
        with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
            MISHAPS[mishap](client, f"{{{channel}}}")
        await store.renew([REAL])
        await store.put_record("s", b"x", ttl_s=60)
        assert "clerk" in [lease.name for lease in await store.leases()]
        assert b"x" == (await store.records())["s"]
        await store.extend(["real1"])
        await store.activation("clerk")
        assert ["clerk"] == [lease.name for lease in await store.release(["real1"])]
        await store.close()

    run(main())


@pytest.mark.pgmq
@pytest.mark.parametrize(
    "body", ["", "x", "99999999999999999999999\n{}", "-1\n{}", "1\n", "\n\n", "1\n{}\n{}"]
)
def test_no_value_stops_the_registry_on_postgres(shared_database: str, channel: str, body: str):
    """The same for rows of the table of leases."""

    async def main() -> None:
        link = HealingConnection(PgEndpoint(dsn=shared_database), "test")
        store = PgLeaseStore(link, channel)
        assert None is await store.claim(REAL)
        literal = body.replace("'", "''")
        await query(
            shared_database,
            f"INSERT INTO pbus.lease VALUES ('{channel}', 'bad', 'i', 'h', E'{literal!s}',"
            " clock_timestamp() + interval '1 h')".replace("\n", "\\n"),
        )
        await store.renew([REAL])
        assert ["clerk"] == [lease.name for lease in await store.leases()]
        await store.extend(["real1"])
        assert ["clerk"] == [lease.name for lease in await store.release(["real1"])]
        await link.close()

    run(main())


def test_no_lease_is_taken_for_another(stores: Stores, channel: str):
    """A sealed lease that was copied, to another name or beside another head, takes and ends nothing."""
    seal = KeySeal([KEY], channel)
    other = Lease(name="post", incarnation="real2", runner="r", host="h", pid=3, state="ready")

    class Copying(KeySeal):
        """Writes the lease of `post`, whatever it is to seal."""

        def close(self, kind: Any, data: bytes, context: bytes = b"") -> bytes:
            return super().close(kind, msgspec.json.encode(other), context)

    async def main() -> None:
        async with stores(seal) as ours, stores(Copying([KEY], channel)) as burglar:
            await ours.claim(other)
            assert None is await burglar.claim(FORGED)
            assert None is await ours.claim(REAL)
            assert ["clerk", "post"] == [lease.name for lease in await ours.leases()]

            await ours.release(["real1"])
            await burglar.claim(msgspec.structs.replace(FORGED, name="clerk", incarnation="evil1"))
            assert [] == (await ours.renew([REAL])).refused

            await burglar.claim(msgspec.structs.replace(FORGED, name="third"))
            assert ["clerk", "post"] == [lease.name for lease in await ours.leases()]
            assert [] == await ours.release(["evil1"])
            assert ["real2"] == [lease.incarnation for lease in await ours.release(["real2"])]

    run(main())


@pytest.mark.redis
def test_no_copy_expires_for_another(valkey: Valkey, channel: str):
    """A copy that runs out under another name is no end of the worker that it names."""

    async def main() -> None:
        store = RedisLeaseStore(
            Endpoint(url=valkey.url, redis=None), Keys(channel), KeySeal([KEY], channel)
        )
        await store.claim(REAL)
        with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
            client.hset(
                f"{{{channel}}}:workers", "x", client.hget(f"{{{channel}}}:workers", "clerk")
            )
            client.zadd(f"{{{channel}}}:leases", {"x": 1})
            head, rest = client.hget(f"{{{channel}}}:workers", "clerk").split(b"|", 1)
            assert b"real1" == head
            assert [] == (await store.renew([])).expired
            for forged in (b"evil1|" + rest, b"", b"evil1", b"evil1|\n", b"|\n\n"):
                client.hset(f"{{{channel}}}:workers", "clerk", forged)
                assert [] == (await store.renew([REAL])).refused
                assert [REAL.incarnation] == [lease.incarnation for lease in await store.leases()]
        await store.close()

    run(main())


NEW, OLD = "the-new-key-of-this", "the-old-key-of-this"


@pytest.mark.parametrize("encrypt", [False, True], ids=["sealed", "encrypted"])
@pytest.mark.parametrize(
    ("running", "starting"),
    [((NEW, OLD), (OLD,)), ((OLD, NEW), (NEW,)), ((NEW, OLD), (NEW,)), ((OLD,), (NEW, OLD))],
    ids=["old comes", "new comes", "new is first", "both come"],
)
def test_no_name_is_taken_while_keys_are_changed(
    stores: Stores, channel: str, running: tuple[str, ...], starting: tuple[str, ...], encrypt: bool
):
    """A process that has one of another's keys is refused its names, and that goes on."""

    async def main() -> None:
        ours = KeySeal(running, channel, encrypt=encrypt)
        theirs = KeySeal(starting, channel, encrypt=encrypt)
        async with stores(ours) as store, stores(theirs) as late:
            assert None is await store.claim(REAL)
            for _ in range(2):
                rival = Lease(name="clerk", incarnation="late1", runner="o", host="h", pid=3)
                holder = await late.claim(rival)
                assert holder is not None
                can_read = not encrypt or running[0] in starting
                assert ("r" if can_read else "?") == holder.runner
                assert [] == (await store.renew([REAL])).refused
            assert ["real1"] == [lease.incarnation for lease in await store.leases()]

    run(main())


def test_a_process_that_shares_no_key_is_a_stranger(stores: Stores, channel: str):
    """What it leases cannot be told from a forgery, and keeps no one from a name."""

    async def main() -> None:
        async with (
            stores(KeySeal([OLD], channel)) as old,
            stores(KeySeal([NEW, KEY], channel)) as new,
        ):
            assert None is await old.claim(FORGED)
            assert None is await new.claim(REAL)
            assert ["real1"] == [lease.incarnation for lease in await new.leases()]

    run(main())
