"""What others do to the server under running workers: within seconds all is there again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from pbus import BaseWorker, WorkerRunner, connect, job
from pbus.bus import WorkerBus
from pbus.messages import BusDataMessage
from support.valkey import Valkey
from support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.redis

ONCE, KEPT = "at-most-once", "at-least-once"


class LooseShipment(BusDataMessage):
    """A numbered message."""

    number: int


class Porter(BaseWorker):
    """Keeps what it gets, and can be told to wait with it."""

    def __init__(self) -> None:
        super().__init__("porter")
        self.numbers: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def on_bus_message(self, message):
        if isinstance(message, LooseShipment):
            await self.gate.wait()
            self.numbers.append(message.number)

    @job(name="double")
    async def double(self, request):
        return {"is": 2 * request.payload["number"]}


@contextlib.asynccontextmanager
async def running(url: str, channel: str, *workers: BaseWorker) -> AsyncIterator[WorkerRunner]:
    """A runner with workers, as one process is."""
    runner = WorkerRunner(bus=connect(url, channel=channel), handle_sigint=False)
    await runner.add_workers(*workers)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        await runner.cancel("the test is over")
        await asyncio.wait_for(task, PATIENCE_S)


def delete(*patterns: str) -> Callable[[Valkey, str], None]:
    """Remove keys of a channel."""

    def do(server: Valkey, channel: str) -> None:
        for pattern in patterns:
            server.command("DEL", pattern.replace("@", f"{{{channel}}}"))

    return do


def say(*words: str) -> Callable[[Valkey, str], None]:
    """Send a command."""

    def do(server: Valkey, channel: str) -> None:
        filled = (word.replace("@", f"{{{channel}}}") for word in words)
        assert not server.command(*filled).startswith(b"-")

    return do


MISHAPS = {
    "flushall": say("FLUSHALL"),
    "flushdb": say("FLUSHDB"),
    "scripts": say("SCRIPT", "FLUSH"),
    "statistics": say("CONFIG", "RESETSTAT"),
    "connections": say("CLIENT", "KILL", "TYPE", "normal"),
    "subscriptions": say("CLIENT", "KILL", "TYPE", "pubsub"),
    "leases": delete("@:leases"),
    "workers": delete("@:workers"),
    "version": delete("@:version", "@:workers"),
}
KEPT_MISHAPS = {
    "index": delete("@:queues"),
    "queuesbox": delete("@:queues:box:porter"),
    "stream": delete("@:queues:q:d:porter", "@:queues:wait:d:porter"),
    "groups": say("XGROUP", "DESTROY", "@:queues:q:d:porter", "g"),
    "numbers": delete("@:queues:last:porter", "@:queues:part:porter", "@:queues:touched"),
}


async def works(bus: WorkerBus, asker: BaseWorker, porter: Porter, number: int) -> None:
    """See that the porter has its lease, does jobs and gets what is sent."""

    async def has_lease() -> None:
        while "porter" not in {lease.name for lease in await bus.leases.leases()}:
            await asyncio.sleep(0.02)

    async with asyncio.timeout(PATIENCE_S):
        await has_lease()
        async with asker.job("porter", name="double", payload={"number": number}) as asked:
            pass
        assert {"is": 2 * number} == asked.response
        await bus.send(LooseShipment(source="me", target="porter", number=number))
        await until(lambda: number in porter.numbers)


@pytest.mark.parametrize("delivery", [ONCE, KEPT])
def test_all_is_there_again(
    own_valkey: Valkey, channel: str, delivery: str, monkeypatch: pytest.MonkeyPatch
):
    """Whatever is removed, messages, jobs and the registry go on; nothing sent later is lost."""
    for name, value in {"URL": own_valkey.url, "CHANNEL": channel}.items():
        monkeypatch.setenv(f"PBUS_{name}", value)
    monkeypatch.setenv("PBUS_DELIVERY", delivery)
    for beat in ("registry.heartbeat.HEARTBEAT_S", "bus.brokered._BEAT_S"):
        monkeypatch.setattr(f"pbus.{beat}", 0.2)
    mishaps = {**MISHAPS, **KEPT_MISHAPS} if delivery == KEPT else MISHAPS
    porter, asker = Porter(), BaseWorker("asker")

    async def main() -> None:
        async with (
            running(own_valkey.url, channel, porter),
            running(own_valkey.url, channel, asker),
            connect(own_valkey.url, channel=channel) as bus,
        ):
            await works(bus, asker, porter, 0)
            for number, (name, mishap) in enumerate(mishaps.items(), 1):
                mishap(own_valkey, channel)
                if delivery == KEPT:  # whether the others have noticed or not
                    await bus.send(LooseShipment(source="me", target="porter", number=100 + number))
                try:
                    await works(bus, asker, porter, number)
                except (TimeoutError, AssertionError) as error:
                    raise AssertionError(f"after {name}") from error
            if delivery == KEPT:
                (report,) = [one for one in await bus.queues.stats() if one.name == "porter"]
                assert (0, 0) == (report.backlog, report.in_flight)
            assert 0 == bus.counters.undelivered

        early = range(101, 101 + len(mishaps)) if delivery == KEPT else []
        assert {*range(len(mishaps) + 1), *early} == set(porter.numbers)

    asyncio.run(main())


@pytest.mark.parametrize("mishap", ["flushall", "stream"])
def test_removed_messages_are_counted(own_valkey: Valkey, channel: str, mishap: str, monkeypatch):
    """What waited in the broker and was removed there is told to its worker, and shows in `ps`."""
    monkeypatch.setattr("pbus.bus.brokered._BEAT_S", 0.2)
    monkeypatch.setattr("pbus.bus.queues.consumer.PREFETCH", 5)
    url, porter = own_valkey.url, Porter()
    options = {"channel": channel, "delivery": KEPT}

    async def main() -> None:
        porter.gate.clear()
        there = connect(url, **options)
        runner = WorkerRunner(bus=there, handle_sigint=False)
        await runner.add_workers(porter)
        running = asyncio.create_task(runner.run())
        async with connect(url, **options) as bus:
            await until(lambda: runner.registry.local_workers)
            for number in range(20):
                await bus.send(LooseShipment(source="me", target="porter", number=number))
            await until(lambda: there.queues._waiting.get("porter") == 15)
            {**MISHAPS, **KEPT_MISHAPS}[mishap](own_valkey, channel)
            await until(lambda: there.stats("porter").lost)
            porter.gate.set()
            await until(lambda: len(porter.numbers) == 5)

            assert (15, [*range(5)]) == (there.stats("porter").lost, porter.numbers)
            await runner.cancel("the test is over")
            await asyncio.wait_for(running, PATIENCE_S)

    asyncio.run(main())
