"""Whatever is killed, every job is answered and nothing that was asked is forgotten.

Workers, supervisor, connections and the broker are killed while a requester that is not killed has
numbered jobs done. `PBUS_NOTHING_LOST=20000` asks for as many, `PBUS_NOTHING_LOST_SEED` chooses who
is killed when.
"""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import redis.asyncio

from pbus import BaseWorker, WorkerRunner
from pbus.bus import WorkerBus, connect
from pbus.observe import HostRecord
from pbus.settings import DeliveryOptions
from support.cli_env import CliEnv, Place
from support.postgres import Postgres, query
from support.valkey import Valkey
from support.waiting import eventually

JOBS = int(os.environ.get("PBUS_NOTHING_LOST", "1200"))
SEED = int(os.environ.get("PBUS_NOTHING_LOST_SEED", "1"))
IS_LONG = JOBS > 2000
AT_ONCE = 60
ANSWER_S = 90.0
CHANNEL = "mill"

TOPOLOGY = """
name: mill
bus: {{url: "{url}", channel: mill, delivery: at-least-once}}
workers:
  a: {{worker: 'workers:Grinder'}}
  b: {{worker: 'workers:Grinder'}}
  pair: {{worker: 'workers:Grinder', replicas: 2}}
"""
WORKERS = """
import asyncio, os
from pathlib import Path
from pbus import BaseWorker, job

class Grinder(BaseWorker):
    @job(name="grind")
    async def grind(self, request):
        number = request.payload["number"]
        await asyncio.sleep(0.001 * (number % 20))
        with (Path(__file__).parent / f"ground-{os.getpid()}").open("a") as file:
            file.write(f"{number}\\n")
        return {"number": number}
"""


class Asker(BaseWorker):
    """Has numbered jobs done, so many at once, and notes the answers."""

    def __init__(self) -> None:
        super().__init__("asker")
        self.answers: dict[int, int] = {}
        self.problems: list[str] = []
        self._places = asyncio.Semaphore(AT_ONCE)

    async def ask(self, number: int) -> None:
        """Have one job done."""
        async with self._places:
            target = ("a", "b", "pair", "pair")[number % 4]
            try:
                async with self.job(
                    target, name="grind", payload={"number": number}, timeout=ANSWER_S
                ) as job:
                    pass
                self.answers[number] = job.response["number"]
            except Exception as error:  # noqa: BLE001 - the test shows them all at its end
                self.problems.append(f"{number} at {target}: {error!r}")

    async def ask_all(self, count: int) -> None:
        """Have all of them done."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(self.ask(number))


class Redis:
    """A Valkey outside pbus."""

    def __init__(self) -> None:
        self.server = Valkey("--appendonly", "yes", "--appendfsync", "always")

    @property
    def url(self) -> str:
        """Where it is."""
        return self.server.url

    async def cut(self, is_chosen: Callable[[], bool]) -> None:
        """Cut connections."""
        async with redis.asyncio.Redis.from_url(self.url) as client:
            for one in await client.client_list():
                if is_chosen() and one["cmd"] != "client|list":
                    await client.client_kill_filter(_id=one["id"])


class Pgmq:
    """A Postgres outside pbus."""

    def __init__(self) -> None:
        self.server = Postgres(is_durable=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.server.url()

    async def cut(self, is_chosen: Callable[[], bool]) -> None:
        """Cut connections."""
        ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pbus' ORDER BY pid"
        for row in await query(self.url, ours):
            if is_chosen():
                await query(self.url, "SELECT pg_terminate_backend($1)", row["pid"])


class Chaos:
    """Kills what a seeded choice says whenever the work has gone a bit further."""

    def __init__(self, broker: Any, place: Place, bus: WorkerBus) -> None:
        self.kills: Counter[str] = Counter()
        self._broker = broker
        self._place = place
        self._bus = bus
        self._random = random.Random(SEED)

    def plan(self) -> list[Callable[[], Awaitable[None]]]:
        """Everything at least once; of the long version a mixture with one kill of the broker."""
        once = [self.worker, self.connections, self.broker, self.worker, self.supervisor]
        more = self._random.choices(
            [self.worker, self.connections, self.supervisor], weights=[3, 3, 1], k=25
        )
        return [*once, *(more if IS_LONG else [self.connections, self.worker])]

    async def worker(self) -> None:
        """Kill a worker's process."""
        pids = [
            process.pid
            for raw in (await self._bus.leases.records()).values()
            for process in msgspec.json.decode(raw, type=HostRecord).processes
            if process.pid is not None
        ]
        if pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self._random.choice(pids)).kill()
            self.kills["worker"] += 1

    async def connections(self) -> None:
        """Cut connections, those of the requester included."""
        await self._broker.cut(lambda: self._random.random() < 0.5)
        self.kills["connections"] += 1

    async def broker(self) -> None:
        """Kill the broker, and start it again."""
        self._broker.server.kill()
        await asyncio.sleep(0.3)  # an outage of some length, not a wait for something
        await asyncio.to_thread(self._broker.server.start)
        self.kills["broker"] += 1

    async def supervisor(self) -> None:
        """Kill the supervisor, and bring the project up again."""
        self._place.supervisor().kill()
        await asyncio.to_thread(bring_up, self._place)
        self.kills["supervisor"] += 1


def bring_up(place: Place) -> None:
    """Start the project, as soon as what is left of the last run allows."""
    assert eventually(lambda: place.run("up", "-d").code == 0, 30)


def ground(folder: Path) -> Counter[int]:
    """How often each number was ground."""
    return Counter(
        int(line)
        for path in folder.glob("ground-*")
        for line in path.read_text().splitlines()
        if line
    )


async def work_through(asker: Asker, chaos: Chaos) -> None:
    """Let chaos do its work while the jobs are done."""
    asking = asyncio.create_task(asker.ask_all(JOBS))
    plan = chaos.plan()
    for number, kill in enumerate(plan, 1):
        while not asking.done() and len(asker.answers) < number * JOBS // (len(plan) + 1):
            await asyncio.wait([asking], timeout=0.02)
        await kill()
    await asking


@pytest.mark.parametrize(
    "kind",
    [pytest.param(Redis, marks=pytest.mark.redis), pytest.param(Pgmq, marks=pytest.mark.pgmq)],
)
@pytest.mark.timeout(1200 if IS_LONG else 180)
def test_kills_lose_no_job(capsys, kind):
    """Every job is answered, every number was ground, no innocent job is a dead letter."""

    async def main(place: Place) -> None:
        options = DeliveryOptions(declared=frozenset({"asker"}))
        bus = connect(
            broker.url,
            channel=CHANNEL,
            delivery="at-least-once",
            delivery_options=options,
            send_timeout=60.0,
        )
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        asker = Asker()
        await runner.add_workers(asker)
        running = asyncio.create_task(runner.run())
        chaos = Chaos(broker, place, bus)
        try:
            await runner.registry.wait_ready("asker", 30.0)  # its queue is there for answers
            await work_through(asker, chaos)
            assert bus.queues is not None
            dead = await bus.queues.dead_letters()
        finally:
            await runner.end()
            await running
        done = ground(place.folder)
        twice = sum(count - 1 for count in done.values())
        with capsys.disabled():
            print(
                f"\n{JOBS:,} jobs on {kind.__name__}, {dict(chaos.kills)}: {twice} done more than once"
            )
        assert [] == asker.problems
        assert {number: number for number in range(JOBS)} == asker.answers
        assert set(range(JOBS)) == set(done)
        assert [] == [message.reason for message in dead]

    broker = kind()
    with broker.server, CliEnv() as cli:
        text = TOPOLOGY.format(url=broker.url)
        place = cli.place("mill", {"topology.yaml": text, "workers.py": WORKERS})
        bring_up(place)
        asyncio.run(main(place))
