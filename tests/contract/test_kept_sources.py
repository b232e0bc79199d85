"""In whose name kept messages speak, on a channel with a key: the living, the dead, and visitors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pbus import BusDataMessage, BusMessage, WorkerRunner
from pbus.bus import WorkerBus
from pbus.errors import BusUnavailableError
from support.listeners import Listener
from support.recorder import Recorder
from support.waiting import run, until

pytestmark = pytest.mark.redis

KEEPS_RECEIVER = {"declared": frozenset({"receiver"})}


class Told(BusDataMessage):
    """Data in some name."""

    number: int


def told(source: str, number: int) -> Told:
    """One for the receiver."""
    return Told(source=source, target="receiver", number=number)


def heard(messages: list[BusMessage]) -> list[tuple[str, int]]:
    """Sources and numbers."""
    return [(one.source, one.number) for one in messages if isinstance(one, Told)]


@contextlib.asynccontextmanager
async def hosting(bus: WorkerBus, name: str) -> AsyncIterator[Recorder]:
    """A worker in a process of its own, as far as the bus can tell."""
    worker = Recorder(name)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    async with bus:
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run(auto_end=False))
        await until(lambda: runner.registry.get(name) is not None)
        try:
            yield worker
        finally:
            await runner.cancel()
            await running


async def open_receiver(make_keeping_bus) -> None:
    """A queue in which messages wait."""
    async with make_keeping_bus(queue_options=KEEPS_RECEIVER) as bus:
        await bus.subscribe(Listener("receiver"))


async def reasons(bus: WorkerBus) -> list[str]:
    """Why dead letters of the receiver are dead."""
    assert bus.queues is not None
    return [message.reason for message in await bus.queues.dead_letters("receiver")]


def test_messages_of_dead_predecessors_are_handled(make_keeping_bus):
    """What a worker sent counts when it is dead and its successor has the name, with and without a registry."""

    async def main() -> None:
        await open_receiver(make_keeping_bus)
        for number in range(2):
            async with hosting(make_keeping_bus(queue_options=KEEPS_RECEIVER), "clerk") as clerk:
                await clerk.send_bus_message(told("clerk", number))
        async with hosting(make_keeping_bus(queue_options=KEEPS_RECEIVER), "clerk"):
            listener, bus = Listener("receiver"), make_keeping_bus(queue_options=KEEPS_RECEIVER)
            async with bus:
                await bus.subscribe(listener)
                assert [("clerk", 0), ("clerk", 1)] == heard(await listener.heard(2, kind=Told))
                assert 0 == bus.counters.refused
            async with hosting(make_keeping_bus(queue_options=KEEPS_RECEIVER), "clerk2") as other:
                await other.send_bus_message(told("clerk2", 3))
        async with hosting(make_keeping_bus(queue_options=KEEPS_RECEIVER), "receiver") as receiver:
            await until(lambda: heard(receiver.received) == [("clerk2", 3)])

    run(main())


def test_messages_of_visitors_in_a_name_are_dead(make_keeping_bus):
    """What another process sent in a worker's name is a dead letter that says so; its neighbours arrive."""

    async def main() -> None:
        await open_receiver(make_keeping_bus)
        visitor = make_keeping_bus(queue_options=KEEPS_RECEIVER)
        async with (
            visitor,
            hosting(make_keeping_bus(queue_options=KEEPS_RECEIVER), "clerk") as clerk,
        ):
            await visitor.send(told("clerk", 1))
            await visitor.send(told("unclaimed", 2))
            await visitor.send(told("cli-1", 3))
            await clerk.send_bus_message(told("clerk", 4))
            await visitor.send(told("clerk", 5))
            rest = [("unclaimed", 2), ("cli-1", 3), ("clerk", 4)]
            listener, bus = Listener("receiver"), make_keeping_bus(queue_options=KEEPS_RECEIVER)
            async with bus:
                await bus.subscribe(listener)
                assert rest == heard(await listener.heard(3, kind=Told))
                await until(lambda: bus.counters.refused == 2)
                assert 0 == bus.counters.unsealed
                async with asyncio.timeout(20):
                    while len(await reasons(visitor)) < 2:
                        await asyncio.sleep(0.01)
            for reason in await reasons(visitor):
                assert "its source is 'clerk', a worker of process" in reason
                assert f"came from process {visitor.incarnation}" in reason
            assert visitor.queues is not None
            messages = await visitor.queues.dead_letters("receiver")
            assert all(
                b'"source":"clerk"' in one.body and b"\t" not in one.body for one in messages
            )

    run(main())


def test_unreachable_registry_accepts_messages(make_keeping_bus, monkeypatch: pytest.MonkeyPatch):
    """Nothing becomes a dead letter because leases cannot be read."""

    async def main() -> None:
        await open_receiver(make_keeping_bus)
        visitor = make_keeping_bus(queue_options=KEEPS_RECEIVER)
        async with visitor, hosting(make_keeping_bus(queue_options=KEEPS_RECEIVER), "clerk"):
            await visitor.send(told("clerk", 1))
            listener, bus = Listener("receiver"), make_keeping_bus(queue_options=KEEPS_RECEIVER)

            async def away():
                raise BusUnavailableError(bus.url, "away")

            monkeypatch.setattr(bus.leases, "leases", away)
            async with bus:
                await bus.subscribe(listener)
                assert [("clerk", 1)] == heard(await listener.heard(1, kind=Told))
                assert [] == await reasons(visitor)

    run(main())
