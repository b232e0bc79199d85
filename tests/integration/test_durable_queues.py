"""Durable queues of workers, over the deaths of workers and supervisor."""

import asyncio
from pathlib import Path

import msgspec
import psutil
import pytest

from pbus.bus.base import WorkerBus
from pbus.bus.connect import make_bus
from pbus.messages import BusDataMessage, Lane
from pbus.process.project.project import Project
from pbus.process.supervisor_events import BrokerReady, Line, Ready, StateChanged
from pbus.topology.model import Topology, WorkerSpec
from pbus.topology.policy.policies import RestartSpec
from support.supervisor_helpers import (
    PATIENCE_S,
    Watched,
    program,
    restarting,
    supervised,
    topology,
)

pytestmark = pytest.mark.redis

KEPT = "at-least-once"
WORKERS = """
import asyncio
from pbus import BaseWorker, BusDataMessage

class Crate(BusDataMessage):
    number: int

class Keen(BaseWorker):
    async def on_bus_message(self, message):
        await super().on_bus_message(message)
        if isinstance(message, Crate):
            print("shipment", message.number)

class Slow(BaseWorker):
    async def on_bus_message(self, message):
        await super().on_bus_message(message)
        if isinstance(message, Crate):
            print("begins", message.number)
            await asyncio.sleep(600)
"""


POISONED = """
import os

class Victim(Keen):
    async def on_bus_message(self, message):
        if isinstance(message, Crate) and message.number == 13:
            os._exit(9)
        await super().on_bus_message(message)
"""


class Crate(BusDataMessage):
    """Something numbered."""

    number: int


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state, sockets and worker classes of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "own_workers.py").write_text(WORKERS)


def keeping(folder: Path, *names: str, cls: str = "Keen", **changes: object) -> Topology:
    """Workers with durable queues, on a broker of their own."""
    specs = [
        WorkerSpec(
            name=name, working_dir=folder, joins=True, worker=f"own_workers:{cls}", **changes
        )
        for name in names
    ]
    what = topology(folder, *specs)
    return msgspec.structs.replace(what, bus=msgspec.structs.replace(what.bus, delivery=KEPT))


def visitor(watched: Watched) -> WorkerBus:
    """A bus of the project, for one who has no queue."""
    record = watched.project.read_record()
    assert record is not None
    return make_bus(record.bus)


async def all_ready(watched: Watched, *names: str) -> None:
    """Wait until these are ready."""
    await watched.until(lambda: set(names) <= {one.worker for one in watched.all(Ready)})


async def reports(bus: WorkerBus) -> dict[str, tuple[int, int]]:
    """Backlog and what is in flight of each queue."""
    assert bus.queues is not None
    return {one.name: (one.backlog, one.in_flight) for one in await bus.queues.stats()}


def test_stored_messages_survive_the_project(tmp_path: Path):
    """Unhandled messages wait in the state folder, and are handled by the next run."""

    async def main() -> None:
        async with supervised(keeping(tmp_path, "a", cls="Slow")) as watched:
            await all_ready(watched, "a")
            async with visitor(watched) as bus:
                for number in range(3):
                    await bus.send(Crate(source="me", target="a", number=number))
                await watched.line("begins 0")
        async with supervised(keeping(tmp_path, "a")) as watched:
            for number in range(3):
                await watched.line(f"shipment {number}")

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


def test_death_requeues_messages(tmp_path: Path):
    """What a killed process held is with its next incarnation at once, long before a lease ends."""

    async def main() -> None:
        async with supervised(keeping(tmp_path, "a", cls="Slow")) as watched:
            await all_ready(watched, "a")
            async with visitor(watched) as bus:
                await bus.send(Crate(source="me", target="a", number=7))
                await watched.line("begins 7")
                assert (1, 1) == (await reports(bus))["a"]
                pid = watched.process("a").pid
                assert pid is not None
                psutil.Process(pid).kill()
                await watched.line("begins 7", 2)
        told = "was killed by SIGKILL, 1 message in flight requeued, restarts in 0.5 s"
        assert StateChanged("a", "backoff", told) in watched.all(StateChanged)

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


def test_lost_messages_are_reported(tmp_path: Path):
    """At most once, what waited in a killed process is gone, and that is said with its end."""
    what = keeping(tmp_path, "a", cls="Slow")
    what = msgspec.structs.replace(what, bus=topology(tmp_path).bus)
    lost = "about {} messages waited in it and are lost"
    lines = {lost.format(count) for count in (4, 5)}  # news of a worker may be among them
    told = {
        StateChanged("a", "backoff", f"was killed by SIGKILL, {line}, restarts in 0.5 s")
        for line in lines
    }

    async def main() -> None:
        async with supervised(what) as watched:
            await all_ready(watched, "a")
            async with visitor(watched) as bus:
                for number in range(5):
                    await bus.send(Crate(source="me", target="a", number=number))
                await watched.line("begins 0")
                while 4 > max(lease.queued for lease in await bus.leases.leases()):
                    await asyncio.sleep(0.05)  # it tells with its next beat
                psutil.Process(watched.process("a").pid).kill()
                await watched.until(lambda: told & set(watched.all(StateChanged)))
                await watched.until(lambda: lines & {line.text for line in watched.all(Line)})
                await watched.state("a", "ready")

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


def test_queues_follow_the_file(tmp_path: Path):
    """Each joining worker has a queue before it is ready; a worker removed from the file has none."""

    async def main() -> None:
        async with supervised(keeping(tmp_path, "a", "b")) as watched:
            await all_ready(watched, "a", "b")
            async with visitor(watched) as bus:
                assert {"a", "b"} == set(await reports(bus))
        what = keeping(tmp_path, "b", replicas=2)
        async with supervised(what) as watched:
            await watched.nth(BrokerReady)
            async with visitor(watched) as bus:
                assert {"b", "b.1", "b.2"} == set(await reports(bus))

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


def test_next_supervisor_gives_back(tmp_path: Path):
    """Incarnations that a killed supervisor left behind keep neither names nor messages."""

    async def main() -> None:
        what = keeping(tmp_path, "a")
        project = Project.of(what)
        project.make_state_dir()
        async with supervised(what) as watched:
            await all_ready(watched, "a")
            async with visitor(watched) as bus:
                assert bus.queues is not None
                await bus.queues.open("b", durable=True)
                await bus.send(Crate(source="me", target="b", number=1))
                taken = await bus.queues.fetch([("b", Lane.DATA, 5)], consumer="gone", wait_s=1.0)
                assert 1 == len(taken)
        (project.state_dir / "incarnations").write_text("+gone\n+well\n-well\n")
        async with supervised(what) as watched:
            await watched.nth(BrokerReady)
            async with visitor(watched) as bus:
                async with asyncio.timeout(PATIENCE_S):  # a slow broker is told again
                    while (1, 0) != (await reports(bus))["b"]:
                        await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


HAND_MADE = """
import asyncio, os
from own_workers import Keen
from pbus import WorkerRunner, connect

async def main():
    bus = connect(os.environ["PBUS_URL"], channel=os.environ["PBUS_CHANNEL"])
    runner = WorkerRunner(bus=bus, handle_sigterm=True)
    await runner.add_workers(Keen(os.environ["PBUS_WORKER"]))
    await runner.run()

asyncio.run(main())
"""


def test_programs_fetch_stored_messages(tmp_path: Path):
    """A program that connects by itself does so as the topology says."""

    async def main() -> None:
        what = topology(tmp_path, program("a", HAND_MADE, tmp_path, joins=True))
        bus = msgspec.structs.replace(what.bus, delivery=KEPT)
        async with supervised(msgspec.structs.replace(what, bus=bus)) as watched:
            await watched.nth(BrokerReady)
            async with visitor(watched) as visiting:
                await visiting.send(Crate(source="me", target="a", number=3))
                await watched.line("shipment 3")

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


def test_poison_stops_no_worker(tmp_path: Path):
    """With the defaults: a worker that dies of one message handles the next, and the message is dead-lettered."""
    (tmp_path / "own_workers.py").write_text(WORKERS + POISONED)
    what = keeping(tmp_path, "a", cls="Victim", restart=RestartSpec(policy="always"))
    what = restarting(what, initial_s=0.05)  # as many ends, in less time

    async def main() -> None:
        async with supervised(what) as watched:
            await all_ready(watched, "a")
            async with visitor(watched) as bus:
                await bus.send(Crate(source="me", target="a", number=13))
                await bus.send(Crate(source="me", target="a", number=14))
                await watched.line("shipment 14")
                assert bus.queues is not None
                while not (messages := await bus.queues.dead_letters("a")):
                    await asyncio.sleep(0.01)
                (message,) = messages
                assert "processes ended while they handled it" in message.reason
            assert "failed" not in watched.states("a")

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))
