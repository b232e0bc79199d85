"""A worker that does jobs and gets messages, and who asks it, while a test makes the broker refuse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pbus import BaseWorker, WorkerRunner, connect, job
from pbus.bus import WorkerBus
from pbus.messages import BusDataMessage
from support.waiting import PATIENCE_S, until


class Slip(BusDataMessage):
    """A numbered message."""

    number: int


class Teller(BaseWorker):
    """Keeps what it gets, and does jobs."""

    def __init__(self) -> None:
        super().__init__("teller")
        self.numbers: list[int] = []

    async def on_bus_message(self, message):
        if isinstance(message, Slip):
            self.numbers.append(message.number)

    @job(name="double")
    async def double(self, request):
        return {"is": 2 * request.payload["number"]}


class Bank:
    """A worker in one runner, who asks it in another, and a bare bus."""

    def __init__(self, url: str, channel: str, delivery: str) -> None:
        self.teller = Teller()
        self.asker = BaseWorker("asker")
        options = {"channel": channel, "delivery": delivery, "send_timeout": PATIENCE_S}
        options["direct"] = False  # a broker that refuses is met only by what goes its way
        self.buses: list[WorkerBus] = [connect(url, **options) for _ in range(3)]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[WorkerBus]:
        """All of it, while the block lasts."""
        runners = [WorkerRunner(bus=bus, handle_sigint=False) for bus in self.buses[:2]]
        tasks = []
        for runner, worker in zip(runners, (self.teller, self.asker), strict=True):
            await runner.add_workers(worker)
            tasks.append(asyncio.create_task(runner.run()))
        try:
            async with self.buses[2] as bus:
                yield bus
        finally:
            for runner in runners:
                await runner.cancel("the test is over")
            await asyncio.wait(tasks, timeout=PATIENCE_S)

    async def works(self, number: int) -> None:
        """See that the teller has its lease, does jobs and gets what is sent."""
        leases = self.buses[2].leases
        async with asyncio.timeout(PATIENCE_S):
            while not {"teller"} <= {one.name for one in await _patiently(leases.leases)}:
                await asyncio.sleep(0.02)
            async with self.asker.job("teller", name="double", payload={"number": 4}) as asked:
                pass
        assert {"is": 8} == asked.response
        await self.gets(number)

    async def gets(self, number: int) -> None:
        """See that the teller gets what is sent, once the server takes it."""
        await self.buses[2].send(Slip(source="me", target="teller", number=number))
        await until(lambda: number in self.teller.numbers)


async def _patiently(call):
    while True:
        with contextlib.suppress(Exception):
            return await call()
        await asyncio.sleep(0.05)


def told(caplog: pytest.LogCaptureFixture, text: str) -> int:
    """How many warnings of one bus have this."""
    return sum(text in record.getMessage() for record in caplog.records)
