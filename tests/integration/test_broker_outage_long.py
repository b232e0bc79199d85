"""A broker that is away for longer than a lease, and plain runners without a supervisor."""

import asyncio
from urllib.parse import parse_qs, urlsplit

import pytest

from pbus import BaseWorker, WorkerRunner, connect
from pbus.messages import BusDataMessage
from support.proxy import Proxy
from support.waiting import PATIENCE_S, run, until

AWAY_S = 7.0  # a lease of a queue is 6 s
TOTAL = 1500


class Lot(BusDataMessage):
    """A numbered message."""

    number: int


class Warehouse(BaseWorker):
    """Keeps what it gets, a little slower than it comes."""

    def __init__(self) -> None:
        super().__init__("warehouse")
        self.numbers: set[int] = set()

    async def on_bus_message(self, message):
        if isinstance(message, Lot):
            await asyncio.sleep(0.001)
            self.numbers.add(message.number)


async def survive(proxy: Proxy, url: str, channel: str) -> None:
    """Send through an outage: what send() confirmed is handled."""
    options = {"channel": channel, "delivery": "at-least-once", "send_timeout": 3 * PATIENCE_S}
    warehouse = Warehouse()
    runner = WorkerRunner(bus=connect(url, **options), handle_sigint=False)
    await runner.add_workers(warehouse)
    running = asyncio.create_task(runner.run())
    async with connect(url, **options) as bus:
        await until(lambda: runner.registry.local_workers)
        for number in range(TOTAL):
            if number == TOTAL // 5:
                await proxy.cut()
                asyncio.get_running_loop().call_later(AWAY_S, proxy.restore)
            await bus.send(Lot(source="me", target="warehouse", number=number))
        await until(lambda: len(warehouse.numbers) == TOTAL)

        assert 0 == bus.counters.undelivered
        await runner.end()
        await asyncio.wait_for(running, PATIENCE_S)


@pytest.mark.redis
@pytest.mark.pgmq
def test_confirmed_messages_outlive_an_outage(valkey, shared_database, channel):
    """Both processes live on without the broker; on Redis and on Postgres, side by side."""
    (folder,) = parse_qs(urlsplit(shared_database).query)["host"]

    async def main() -> None:
        async with (
            Proxy(str(valkey.socket)) as redis,
            Proxy(f"{folder}/.s.PGSQL.5432") as postgres,
        ):
            await asyncio.gather(
                survive(redis, redis.url, channel),
                survive(postgres, postgres.postgres_url(shared_database), channel),
            )

    run(main())
