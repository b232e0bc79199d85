"""Dead rows that an old snapshot of another session keeps: no call may read its way past them."""

import json

import asyncpg
import pytest

from pbus.bus.pgmq import PgmqQueueStore, standalone_store
from pbus.bus.pgmq.server.endpoint import Endpoint
from pbus.bus.queues.store import Settlement
from pbus.ids import new_id
from pbus.messages import Lane
from support.postgres import query
from support.queue_helpers import Writer
from support.waiting import PATIENCE_S, run

pytestmark = pytest.mark.pgmq

DEAD = 6_000  # entries that were settled, and versions of counts
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class LIMIT 1"
WANTED = [("box", Lane.DATA, 1_000)]


class Blocks:
    """Counts the blocks that the store's statements read or hit."""

    def __init__(self, store: PgmqQueueStore) -> None:
        self._store = store

    async def of(self, sql: str, *arguments: object) -> int:
        """Those of one statement, with all that its functions do."""
        connection = await self._store._connections.reader._connect()
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"
        (plan,) = json.loads(await connection.fetchval(explain, *arguments))
        return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]


async def cycle(store: PgmqQueueStore, many: int) -> None:
    """Store entries, take and settle them."""
    writer = Writer(new_id())
    await store.put([writer.to("box", "x") for _ in range(many)])
    found = await store.fetch([("box", Lane.DATA, many)], consumer="consumer", wait_s=0)
    assert many == len(found)
    await store.settle([Settlement(one) for one in found])


async def use_counts(url: str) -> None:
    """Count as often as entries are stored and settled one by one."""
    loop = f"""DO $$ DECLARE its bigint := (SELECT id FROM pbus.queue WHERE name = 'box'); BEGIN
      FOR i IN 1 .. {DEAD} LOOP
        PERFORM pbus.queue_lock_count(its, 'in');
        PERFORM pbus.queue_count_in(its, 1, 10);
        PERFORM pbus.queue_count_out(its, 1, 10);
        COMMIT;
      END LOOP; END $$"""
    await query(url, loop)


async def costs(store: PgmqQueueStore, url: str) -> dict[str, int]:
    """Blocks for each call, once a session has found its place."""
    blocks, writer = Blocks(store), Writer(new_id())
    channel = store._channel
    found = {}
    for number in range(3):
        entry = writer.to("box", "x")  # numbered for this sender
        put = "SELECT pbus.queue_put_one($1, $2, $3, $4, $5, $6, $7, $8)"
        arguments = (
            entry.sender,
            entry.stream,
            "box",
            "d",
            number + 1,
            1,
            f'[["lone {entry.sender} {number}", "x"]]',
        )
        found["put"] = await blocks.of(put, channel, *arguments)
        fetch = "SELECT pbus.queue_fetch($1, 'consumer', '{box}', '{d}', '{1000}', NULL, true, 30)"
        found["fetch"] = await blocks.of(fetch, channel)
        found["fetch nothing"] = await blocks.of(fetch, channel)
        (hold,) = await query(url, "SELECT hold, queue_id FROM pbus.in_flight")
        settle = """SELECT pbus.queue_settle(
          $1, ARRAY[$2::bigint], '{0}', ARRAY[$3::bigint], ARRAY[$4], '{ack}', '{0}', '{""}', 9, 9)"""
        found["settle"] = await blocks.of(
            settle, channel, hold[0], hold[1], f"lone {entry.sender} {number}"
        )
        renew = "SELECT pbus.queue_renew($1, '{box}', '{consumer}', '{}', 30, 30)"
        found["renew"] = await blocks.of(renew, channel)
    return found


def test_dead_rows_are_not_read(database: str) -> None:
    """Each call reads about as much after thousands of entries as it did before them."""

    async def main() -> None:
        store = standalone_store(Endpoint(dsn=database), "held")
        await store.open("box", durable=True)
        before = await costs(store, database)
        other = await asyncpg.connect(database)
        try:
            await other.execute(SNAPSHOT)
            for _ in range(DEAD // 1_000):
                await cycle(store, 1_000)
            await use_counts(database)
            after = await costs(store, database)
        finally:
            await other.close()
            await store.close()
        assert {} == {
            name: (before[name], blocks)
            for name, blocks in after.items()
            if blocks > 3 * before[name] + 60
        }

    run(main())


def test_nothing_is_passed_over(database: str) -> None:
    """Messages come although their row is older than those where the last scan ended."""

    async def main() -> None:
        store = standalone_store(Endpoint(dsn=database), "kept")
        await store.open("box", durable=True)
        writer = Writer("writer")
        await store.put([writer.to("box", "early")])
        (early,) = await store.fetch(WANTED, consumer="consumer", wait_s=0)
        for many in (400, 400, 1, 1):  # far beyond it
            await cycle(store, many)
        await store.settle([Settlement(early, "retry", delay_s=0.0)])
        await until_fetched(store, early.id)
        for many in (400, 400, 1, 1):
            await cycle(store, many)
        assert 1 == await store.requeue_held_by(["consumer"])
        await until_fetched(store, early.id, consumer="next")
        await store.close()

    run(main())


async def until_fetched(store: PgmqQueueStore, id_: str, consumer: str = "consumer") -> None:
    """Take the message of that id, which is the only one."""
    found = await store.fetch(WANTED, consumer=consumer, wait_s=PATIENCE_S)
    assert [id_] == [one.id for one in found]


def test_rows_of_other_writers_are_found(database: str) -> None:
    """A row that another writer numbered early and committed late is taken."""

    async def main() -> None:
        store = standalone_store(Endpoint(dsn=database), "late")
        await store.open("box", durable=True)
        base = await query(database, "SELECT base FROM pbus.queue WHERE channel = 'late'")
        other = await asyncpg.connect(database)
        try:
            await other.execute("BEGIN")
            sql = "SELECT pgmq.send($1, $2::jsonb, $3::jsonb)"
            await other.execute(sql, f"{base[0][0]}_d", '[["late", "x"]]', '{"n": 1, "b": 5}')
            for many in (400, 400, 1, 1):
                await cycle(store, many)
            await other.execute("COMMIT")
            await until_fetched(store, "late")
        finally:
            await other.close()
            await store.close()

    run(main())
