"""A bug of pbus in what runs as long as a bus costs a second, not the rest of the process."""

import asyncio
import logging

import pytest

from pbus.bus import WorkerBus
from pbus.messages import BusDataMessage, BusMessage, BusSystemMessage
from support.listeners import Listener
from support.waiting import PATIENCE_S, run, until


class Said(BusDataMessage):
    """Data."""


class SaidUrgently(BusSystemMessage):
    """Urgent."""


@pytest.fixture
def make_bus(make_any_bus, any_backend):
    """The buses that have tasks of their own."""
    if any_backend == "memory":
        pytest.skip("no broker, no tasks")
    return make_any_bus


class UnexpectedError(Exception):
    """What no code of a bus knows."""


def break_once(owner: object, name: str) -> None:
    """Have a method raise at its next call."""

    def broken(*_: object, **__: object):
        delattr(owner, name)  # the class's own again
        raise UnexpectedError(name)

    setattr(owner, name, broken)


async def arrives(bus: WorkerBus, listener: Listener, kind: type[BusMessage]) -> None:
    """Send until one is heard: what is on its way when a reader ends is lost."""
    listener.messages.clear()
    async with asyncio.timeout(PATIENCE_S):
        while not any(isinstance(message, kind) for message in listener.messages):
            await bus.send(kind(source="cli-1", target="here"))
            await asyncio.sleep(0.05)


def test_tasks_of_a_bus_go_on(make_bus, caplog: pytest.LogCaptureFixture):
    """Each is broken once in a living bus: said by name, counted, and both lanes work after it."""

    async def main() -> None:
        listener = Listener("here")
        ours: WorkerBus = make_bus()
        async with ours:
            await ours.subscribe(listener)
            what = (
                (ours._flow_control._transport, "send_control")
                if ours.queues is None
                else (ours._consumer, "_fetch_plan")
            )
            for number, fault in enumerate([(ours, "_receive"), (ours, "_beat_once"), what], 1):
                break_once(*fault)
                async with make_bus() as theirs:  # a new sender, which is granted credit
                    await theirs.send(Said(source="cli-1", target="here"))
                    await theirs.send(SaidUrgently(source="cli-1", target="here"))
                    await until(lambda number=number: ours.counters.faults == number)
                    for kind in (Said, SaidUrgently):
                        await arrives(theirs, listener, kind)

    with caplog.at_level(logging.ERROR, "pbus"):
        run(main())
    said = [record.message for record in caplog.records if "ended by an error" in record.message]
    assert 3 == len(said)
    assert any("beat of the bus" in line for line in said)
    assert any("reader of the bus" in line or "wire of the bus" in line for line in said)
