"""What a program forks is no second incarnation of it: signals, sockets and the loop stay with the parent."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from pbus.bus.connect import connect
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import BusDataMessage, BusMessage
from pbus.process.supervisor_events import Exited, Line, Ready
from pbus.runner import WorkerRunner
from pbus.topology.model import WorkerSpec
from pbus.workers.base_worker import BaseWorker
from support.supervisor_helpers import supervised, topology
from support.valkey import Valkey
from support.waiting import PATIENCE_S, run, until

FORKING = """
import asyncio, multiprocessing, os, signal, sys, time, pbus

class Forking(pbus.BaseWorker):
    async def start(self):
        self.create_task(self.fork())

    async def stop(self):
        print("stopped", flush=True)

    async def fork(self):
        # A pool ends its processes by SIGTERM.
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print("pool", pool.map(abs, [-1, -2]), flush=True)
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
        os.kill(pid, signal.SIGTERM)
        print("signal", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        pid = os.fork()
        if pid == 0:
            sys.exit()  # contained like any error of a handler: it comes back into the loop
        print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        if os.fork() == 0:
            return  # into the loop
        print("return", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
        for _ in range(20):  # whatever a child could have done to the loop would show
            await asyncio.sleep(0.01)
        async with self.job(self.name, name="add", payload={"to": 1}) as job:
            pass
        print("answer", job.response, flush=True)

    @pbus.job(name="add")
    async def add(self, request):
        await self.send_job_response(request.job_id, {"sum": request.payload["to"] + 1})
"""

# A program that forks a child for ever, says its pid, and reads no messages.
RECEIVER = """
import asyncio, os, sys, time
from pbus import connect
from pbus.bus.subscriber import BusSubscriber

class Deaf(BusSubscriber):
    name = "deaf"
    async def on_bus_message(self, message):
        await asyncio.sleep(600)

async def main():
    bus = connect(sys.argv[1], channel=sys.argv[2], delivery="at-most-once")
    await bus.start()
    await bus.subscribe(Deaf())
    await bus.leases.leases()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(600)
    print(pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


# A program with a worker, that says its incarnation when it is ready.
INCARNATION = """
import asyncio, sys, pbus
from pbus.bus.connect import connect

class Deaf(pbus.BaseWorker):
    pass

async def main():
    bus = connect(sys.argv[1], channel=sys.argv[2])
    runner = pbus.WorkerRunner(bus=bus)
    worker = Deaf("deaf")
    await runner.add_workers(worker)
    runner.registry.watch("deaf", tell)
    await runner.run()

async def tell(data):
    print(data.incarnation, flush=True)

asyncio.run(main())
"""


class ForkedBlob(BusDataMessage):
    """Some bytes."""

    number: int
    text: str = "x" * 256


class BlobCounter(BusSubscriber):
    """Counts what comes."""

    name = "deaf"

    def __init__(self) -> None:
        self.count = 0

    async def on_bus_message(self, message: object) -> None:
        self.count += isinstance(message, ForkedBlob)


def test_handlers_may_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither a pool, nor a child that is signalled or runs on into the loop, touches the worker."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "own_workers.py").write_text(FORKING)
    spec = WorkerSpec(name="a", working_dir=tmp_path, joins=True, worker="own_workers:Forking")

    async def main() -> None:
        async with supervised(topology(tmp_path, spec)) as watched:
            await watched.nth(Ready)
            await watched.until(
                lambda: any(one.text.startswith("answer") for one in watched.all(Line))
            )
            said = [one.text for one in watched.all(Line) if one.stream == "out"]
            signalled = f"signal {-signal.SIGTERM}"
            expected = ["pool [1, 2]", signalled, "exit 1", "return 1", "answer {'sum': 2}"]
            assert expected == said
            assert [] == watched.all(Exited)
            assert not [one for one in watched.all(Line) if "SIGTERM" in one.text]
            assert 0 == await watched.stop()
            assert "stopped" == [one.text for one in watched.all(Line) if one.stream == "out"][-1]

    asyncio.run(main())


@contextlib.contextmanager
def outlived(url: str, channel: str) -> Iterator[Callable[[], None]]:
    """A receiver to be killed, with a forked child that goes on."""
    process = subprocess.Popen(
        [sys.executable, "-c", RECEIVER, url, channel], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())

    def kill() -> None:
        process.kill()
        process.wait()
        os.kill(child, 0)

    try:
        yield kill
    finally:
        kill()
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_outliving_child_holds_up_none(valkey: Valkey, channel: str):
    """A killed program's child has no connection: senders reach the next incarnation, which is alone."""

    async def main() -> None:
        sender = connect(valkey.url, channel=channel, send_timeout=PATIENCE_S)
        receiver = connect(valkey.url, channel=channel)
        async with sender, receiver:
            counter = BlobCounter()
            await receiver.subscribe(counter)
            for number in range(8_000):
                await sender.send(ForkedBlob(source="s", target="deaf", number=number))
            await until(lambda: counter.count == 8_000)

    with outlived(valkey.url, channel) as kill:
        kill()
        run(main())


@pytest.mark.pgmq
def test_outliving_child_has_no_session(database: str, channel: str):
    """On Postgres, too, the connections of a killed program end with it."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'pbus' AND datname = current_database()"
    )

    async def main() -> None:
        connection = await asyncpg.connect(database)
        try:
            assert await connection.fetchval(query) > 0
            kill()
            async with asyncio.timeout(PATIENCE_S):
                while await connection.fetchval(query):
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()

    with outlived(database, channel) as kill:
        run(main())


class Sender(BaseWorker):
    """Sends when it is told to."""

    async def flood(self, count: int) -> None:
        for number in range(count):
            await self.send_bus_message(ForkedBlob(source=self.name, target="deaf", number=number))


class Receiver(BaseWorker):
    """Counts what comes."""

    count = 0

    async def on_bus_message(self, message: BusMessage) -> None:
        await super().on_bus_message(message)
        self.count += isinstance(message, ForkedBlob)


@contextlib.asynccontextmanager
async def hosted(worker: BaseWorker, url: str, channel: str) -> AsyncIterator[WorkerRunner]:
    """A runner of one worker."""
    runner = WorkerRunner(
        bus=connect(url, channel=channel, send_timeout=PATIENCE_S), handle_sigint=False
    )
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        await runner.registry.wait_ready(worker.name, PATIENCE_S)
        yield runner
    finally:
        await runner.cancel("the test is over")
        await running


def test_credit_belongs_to_an_incarnation(valkey: Valkey, channel: str):
    """An incarnation that is over and keeps its connections holds up no sender, old or new, to the next."""

    async def main(old: "subprocess.Popen[str]", incarnation: str) -> None:
        sender, receiver = Sender("s"), Receiver("deaf")
        async with hosted(sender, valkey.url, channel) as runner:
            await runner.registry.wait_ready("deaf", PATIENCE_S)
            await sender.flood(1)
            old.send_signal(signal.SIGSTOP)
            await runner.bus.leases.release([incarnation])  # as it runs out by itself
            async with hosted(receiver, valkey.url, channel):
                await until(lambda: runner.registry.get("deaf").incarnation != incarnation)
                await sender.flood(8_000)
                await until(lambda: receiver.count >= 8_000)
                late = Sender("late")
                async with hosted(late, valkey.url, channel) as other:
                    await other.registry.wait_ready("deaf", PATIENCE_S)
                    await late.flood(8_000)
                    await until(lambda: receiver.count >= 16_000)

    old = subprocess.Popen(
        [sys.executable, "-c", INCARNATION, valkey.url, channel], stdout=subprocess.PIPE, text=True
    )
    assert old.stdout is not None
    try:
        run(main(old, old.stdout.readline().strip()))
    finally:
        old.kill()
        old.wait()
        old.stdout.close()
