"""Plans made while tables were nearly empty: the work of a call grows with its rows, not their square."""

import re
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import pytest

from pbus.bus.pgmq import Endpoint, PgmqQueueStore, standalone_store
from pbus.bus.pgmq.server import session
from pbus.bus.queues.store import SETTLED_AT_ONCE, Settlement, StoredMessage
from pbus.errors import BusUnavailableError
from pbus.messages import Lane
from support.postgres import query
from support.queue_helpers import Writer
from support.waiting import run

pytestmark = pytest.mark.pgmq

# Work that grows with the square of the rows grows 64 times here.
SMALL, LARGE, MOST_TIMES = 250, 2_000, 20.0
_USED = re.compile(r"([0-9.]+) s user, ([0-9.]+) s system")


class Work:
    """Adds up the processor time of the statements on a store's connections.

    Args:
        store: A store without anything under way.
    """

    def __init__(self, store: PgmqQueueStore) -> None:
        self._store = store
        self._used_s = 0.0

    async def watch(self) -> None:
        """Have the server tell the time of each statement from now on."""
        for link in (self._store._connections.reader, self._store._connections.writer):
            connection = await link._connect()
            connection.add_log_listener(self._note)
            await connection.execute("SET log_statement_stats = on; SET client_min_messages = log")

    async def of(self, call: Awaitable[object]) -> float:
        """The seconds that a call takes on the server."""
        self._used_s = 0.0
        await call
        return self._used_s

    def _note(self, connection: object, message: asyncpg.PostgresLogMessage) -> None:
        del connection
        if message.message == "EXECUTE MESSAGE STATISTICS":
            self._used_s += sum(map(float, _USED.search(message.detail).groups()))


async def stored(store: PgmqQueueStore, many: int) -> None:
    """Store entries of one message each."""
    writer = Writer(f"writer of {many}")
    await store.put([writer.to("box", "x") for _ in range(many)])


async def taken(store: PgmqQueueStore, many: int) -> list[StoredMessage]:
    """Take messages, each an entry."""
    found = await store.fetch([("box", Lane.DATA, many)], consumer="consumer", wait_s=0)
    assert len(found) == many
    return found


async def prepare(store: PgmqQueueStore, many: int) -> list[StoredMessage]:
    """Store entries and take them."""
    await stored(store, many)
    return await taken(store, many)


async def settles(store: PgmqQueueStore, many: int, work: Work) -> float:
    """Settle what was handled."""
    found = await prepare(store, many)
    return await work.of(store.settle([Settlement(one) for one in found]))


async def settles_parts(store: PgmqQueueStore, many: int, work: Work) -> float:
    """Settle half of each of many entries, then the rest."""
    writer = Writer(f"writer of {many}")
    await store.put([writer.to("box", "x", "y") for _ in range(many // 2)])
    found = await taken(store, many)
    first = await work.of(store.settle([Settlement(one) for one in found[::2]]))
    return first + await work.of(store.settle([Settlement(one) for one in found[1::2]]))


async def dead_letters(store: PgmqQueueStore, many: int, work: Work) -> float:
    """Give up all, put it back, take and settle it."""
    found = await prepare(store, many)
    given_up = [Settlement(one, how="dead_letter", reason="x") for one in found]
    used = await work.of(store.settle(given_up))
    keys = [dead.key for dead in await store.dead_letters()]
    used += await work.of(store.requeue_dead(keys))
    found = await taken(store, many)
    await store.settle([Settlement(one) for one in found])
    return used


async def takes(store: PgmqQueueStore, many: int, work: Work) -> float:
    """Take what is there."""
    await stored(store, many)
    used = await work.of(taken(store, many))
    await store.requeue_held_by(["consumer"])
    await store.settle([Settlement(one) for one in await taken(store, many)])
    return used


async def takes_again(store: PgmqQueueStore, many: int, work: Work) -> float:
    """Take what an answer that was lost had, among what is known."""
    found = await prepare(store, 2 * many)
    for hold in list(store.fetcher.uncertainty._held["consumer"])[::2]:
        del store.fetcher.uncertainty._held["consumer"][hold]
    store.fetcher.uncertainty.doubt("consumer")
    used = await work.of(taken(store, many))
    await store.settle([Settlement(one) for one in found])
    return used


async def starts(store: PgmqQueueStore, many: int, work: Work) -> float:
    """Note that handlers start, and give all of it back."""
    found = await prepare(store, many)
    used = await work.of(store.mark_started(found))
    used += await work.of(store.requeue_held_by(["consumer"]))
    await store.settle([Settlement(one) for one in await taken(store, many)])
    return used


Call = Callable[[PgmqQueueStore, int, Work], Awaitable[float]]
CALLS: Sequence[Call] = (settles, settles_parts, dead_letters, takes, takes_again, starts)


@pytest.mark.parametrize("call", CALLS)
def test_work_grows_with_the_rows(database: str, channel: str, call: Call):
    """One message was there when ANALYZE ran, and plans are kept; later there are thousands."""

    async def main() -> None:
        store = standalone_store(Endpoint(dsn=database), channel)
        work = Work(store)
        await store.open("box", durable=True)
        (message,) = await prepare(store, 1)
        await query(database, "ANALYZE")
        await work.watch()
        await store.settle([Settlement(message)])
        await call(store, 2, work)  # plans are made

        small, large = [await call(store, many, work) for many in (SMALL, LARGE)]

        await store.close()
        assert large <= MOST_TIMES * small

    run(main())


def test_large_batches_are_split(database: str, channel: str):
    """What is settled at once holds its locks for a bounded time, however much there is."""

    async def main() -> None:
        store = standalone_store(Endpoint(dsn=database), channel)
        await store.open("box", durable=True)
        many = 2 * SETTLED_AT_ONCE + 1
        found = await prepare(store, many)
        sizes: list[int] = []
        call = store._writer.call

        async def counting(sql: str, *arguments):
            sizes.append(len(arguments[1]))
            return await call(sql, *arguments)

        store._writer.call = counting
        await store.settle([Settlement(one) for one in found])
        store._writer.call = call

        assert [SETTLED_AT_ONCE, SETTLED_AT_ONCE, 1] == sizes
        assert [0] == [report.backlog for report in await store.stats()]
        await store.close()

    run(main())


def test_statements_end_on_the_server(database: str, channel: str, monkeypatch: pytest.MonkeyPatch):
    """A call that waits too long ends there, too; its connection goes on, and it can be repeated."""
    monkeypatch.setattr(session, "STATEMENT_S", 0.3)

    async def main() -> None:
        store = standalone_store(Endpoint(dsn=database), channel)
        await store.open("box", durable=True)
        found = await prepare(store, 10)
        connection = store._writer._connection
        other = await asyncpg.connect(database)
        async with other.transaction():
            await other.execute("SELECT FROM pbus.in_flight FOR UPDATE")
            with pytest.raises(BusUnavailableError, match="statement timeout"):
                await store.settle([Settlement(one) for one in found])
            busy = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            assert 0 == await other.fetchval(busy)
        await other.close()
        await store.settle([Settlement(one) for one in found])

        assert connection is store._writer._connection
        assert [0] == [report.backlog for report in await store.stats()]
        await store.close()

    run(main())


def test_large_answers_have_their_time(database: str, channel: str):
    """What carries much may take longer on the server; what comes after it may not."""

    async def main() -> None:
        store = standalone_store(Endpoint(dsn=database), channel)
        show = "SHOW statement_timeout"
        sizes = (0, 128 * 1024 * 1024, 1024)
        limits = [(await store._writer.call(show, size=size))[0][0] for size in sizes]
        await store.close()
        assert ["9s", "137s", "9s"] == limits

    run(main())


def test_stats_read_what_is_in_flight_once(database: str, channel: str):
    """However many queues there are; each is told its own."""
    queues, each = 4, 5

    async def main():
        store = standalone_store(Endpoint(dsn=database), channel)
        connection = await asyncpg.connect(database)
        try:
            for number in range(queues):
                name = f"box {number}"
                await store.open(name, durable=True)
                await store.put(Writer(name).each(name, *"x" * (each + number)))
                wanted = [(name, Lane.DATA, each)]
                assert each == len(await store.fetch(wanted, consumer="consumer", wait_s=0))
            await connection.execute("ANALYZE pbus.in_flight")
            async with connection.transaction():
                reports = await connection.fetch("SELECT * FROM pbus.queue_stats($1)", channel)
                read = await connection.fetchval(
                    "SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_xact_user_tables"
                    " WHERE relid = 'pbus.in_flight'::regclass"
                )
        finally:
            await connection.close()
            await store.close()
        expected = [(f"box {number}", each + number, each) for number in range(queues)]
        assert expected == [(one["name"], one["backlog"], one["in_flight"]) for one in reports]
        assert queues * each == read

    run(main())
