"""State events are sent when followers can have reconnected; dead incarnations are released."""

import asyncio
from typing import Any
from unittest import mock

import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.leases import Lease
from pbus.process.supervisor import broker_watch, bus_client
from pbus.process.supervisor.bus_client import SupervisorBusClient
from pbus.process.supervisor.control import ControlServer
from pbus.process.supervisor.reports.state_events import StateEventQueue
from pbus.process.supervisor_events import StateChanged
from support.waiting import run, until

CONTROL = ControlServer("sup", mock.Mock(), mock.Mock(), mock.Mock())


class Bus(AsyncQueueBus):
    """A bus whose broker is away when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_there = True
        self.told: list[Any] = []

    @property
    def is_connected(self) -> bool:
        return self.is_there

    async def send(self, message: Any) -> None:
        self.told.append(message)


def test_state_events_outlive_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be told right after a reconnect waits, even before anybody looked at the bus."""
    monkeypatch.setattr(broker_watch, "_STEADY_S", 1e12)
    bus, supervised = Bus(), mock.Mock(state_events=StateEventQueue("sup", "sample"))
    client = SupervisorBusClient(bus, "sup", CONTROL, supervised, mock.Mock())

    async def main() -> None:
        bus.is_there = False
        client.broker.check()
        supervised.state_events.on_event(StateChanged("a", "ready", ""))
        bus.is_there = True
        await client._send_outgoing()
        assert [] == bus.told

        monkeypatch.setattr(broker_watch, "_STEADY_S", 0.0)
        await client._send_outgoing()
        assert ["ready"] == [message.state for message in bus.told]

    run(main())


class Registry:
    """Leases of processes that end together; refuses the first call with what it was told."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble = trouble
        self.asked: list[list[str]] = []

    async def release(self, incarnations: list[str]) -> list[Lease]:
        known = {one for asked in self.asked for one in asked}
        self.asked.append(list(incarnations))
        await asyncio.sleep(0)  # as long as it takes, others die
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            self.asked.clear()
            raise trouble
        return [
            Lease(name=one, incarnation=f"{one}-1", runner="r", host="h", pid=1, queued=2)
            for one in incarnations
            if one not in known
        ]


class QueueAdmin:
    """Requeues three messages of each incarnation; may fail the first time."""

    is_durable = True

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble = trouble

    async def requeue_held_by(self, incarnation: str) -> int:
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble
        return 3


@pytest.mark.parametrize("where", ["registry", "queues"])
def test_unexpected_error_is_retried(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error of one call is logged, and the call is made again."""
    bus = Bus()
    trouble = ValueError("not expected")
    bus._leases = Registry(trouble if where == "registry" else None)  # type: ignore[assignment]
    queue_admin = QueueAdmin(trouble if where == "queues" else None)
    client = SupervisorBusClient(bus, "sup", CONTROL, mock.Mock(), queue_admin)  # type: ignore[arg-type]

    async def main() -> None:
        assert "" == await client.release_incarnation("a", "killed")
        assert [] == bus.told
        await client._dead.release_all()

        (told,) = bus.told
        assert ["a"] == [entry.name for entry in told.workers]
        assert "killed" == told.workers[0].gone

    run(main())

    assert "ValueError: not expected" in caplog.text


def test_mass_death_is_one_call() -> None:
    """Of many that die together each learns what became of its messages, with few calls."""
    bus = Bus()
    registry = bus._leases = Registry()  # type: ignore[assignment]
    client = SupervisorBusClient(bus, "sup", CONTROL, mock.Mock(), QueueAdmin())  # type: ignore[arg-type]

    async def main() -> None:
        names = [f"{number:02}" for number in range(50)]
        left = await asyncio.gather(*(client.release_incarnation(name, "killed") for name in names))

        assert ["3 messages in flight requeued"] * 50 == left
        assert 50 == len(bus.told)
        assert [1, 49] == [len(asked) for asked in registry.asked]

    run(main())


class Records(Registry):
    """Counts the records that are stored."""

    stored = 0

    async def put_record(self, key: str, record: bytes, *, ttl_s: float) -> None:
        del key, record, ttl_s
        self.stored += 1


@pytest.mark.parametrize(("bytes_s", "stored"), [(1e9, 2), (1e-9, 1)], ids=["small", "large"])
def test_records_take_a_bounded_share_of_the_broker(
    monkeypatch: pytest.MonkeyPatch, bytes_s: float, stored: int
) -> None:
    """A change is published at once, unless the record is so large that the one before must be paid first."""
    monkeypatch.setattr(bus_client, "_RECORD_EVERY_S", 3600.0)
    monkeypatch.setattr(bus_client, "_RECORD_BYTES_S", bytes_s)
    bus, supervised = Bus(), mock.Mock(state_events=StateEventQueue("sup", "sample"))
    records = bus._leases = Records()  # type: ignore[assignment]
    supervised.record.return_value = {"processes": ["a"]}
    client = SupervisorBusClient(bus, "sup", mock.Mock(), supervised, mock.Mock())

    async def main() -> None:
        publishing = asyncio.create_task(client.tasks()["record"]())
        await until(lambda: records.stored == 1)
        client.refresh()
        await until(lambda: records.stored == stored)
        for _ in range(100):  # turns of the loop: nothing else is awaited
            await asyncio.sleep(0)
        assert stored == records.stored
        publishing.cancel()
        await asyncio.wait([publishing])

    run(main())
