"""The broker is away: no worker is restarted, counted or failed for that."""

import asyncio
from pathlib import Path

import psutil
import pytest
import redis

from pbus import BaseWorker, WorkerRunner, connect
from pbus.errors import BusUnavailableError
from pbus.process.supervisor_events import BrokerLost, Exited, GaveUp, Line, Started, StateChanged
from pbus.topology.model import WorkerSpec
from support.supervisor_helpers import Watched, program, restarting, supervised, topology
from support.valkey import Valkey
from support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.redis

WORKERS = """
import os, time
from pbus import BaseWorker

class Plain(BaseWorker):
    pass

class Late(BaseWorker):
    def __init__(self, name):
        print("begun", flush=True)
        while not os.path.exists("begin"):
            time.sleep(0.01)
        super().__init__(name)
"""
JOINER = """
import asyncio, os
from pbus import BaseWorker, WorkerRunner, connect

async def main():
    bus = connect(os.environ["PBUS_URL"], channel=os.environ["PBUS_CHANNEL"])
    runner = WorkerRunner(bus=bus)
    await runner.add_workers(BaseWorker(os.environ["PBUS_WORKER"]))
    await runner.run()

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state, sockets and worker classes of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "own_workers.py").write_text(WORKERS)


def waiting(watched: Watched) -> set[str]:
    """The workers that wait, for themselves or to be started."""
    said = {one.worker: one.detail for one in watched.all(StateChanged)}
    said |= {one.worker: one.text for one in watched.all(Line) if "waits for" in one.text}
    return {worker for worker, text in said.items() if "waits for the broker" in text}


def test_all_come_back(tmp_path: Path, own_valkey: Valkey) -> None:
    """Who ends or starts meanwhile waits for the broker, and joins when it is back."""

    def hosted(name: str, kind: str, replicas: int | None = None) -> WorkerSpec:
        return WorkerSpec(
            name=name,
            working_dir=tmp_path,
            joins=True,
            worker=f"own_workers:{kind}",
            replicas=replicas,
        )

    what = topology(
        tmp_path,
        hosted("plain", "Plain", replicas=2),
        hosted("late", "Late"),
        program("joiner", JOINER, tmp_path, joins=True),
        program("loner", "import time; time.sleep(600)", tmp_path),
        url=own_valkey.url,
    )

    async def main() -> None:
        async with supervised(restarting(what, max_exits=1)) as watched:
            for name in ("plain.1", "plain.2", "joiner", "loner"):
                await watched.state(name, "ready")
            await watched.line("begun")
            own_valkey.kill()
            await watched.nth(BrokerLost)
            for name in ("plain.1", "joiner", "loner"):
                psutil.Process(watched.process(name).pid).kill()
            (tmp_path / "begin").touch()
            await watched.until(lambda: waiting(watched) == {"plain.1", "joiner", "late"})
            assert 6 == len(watched.all(Started))  # one that does not join needs no broker
            own_valkey.start()
            for name in ("plain.1", "plain.2", "late", "joiner", "loner"):
                await watched.state(name, "ready")
            assert {"plain.1", "joiner", "loner"} == {one.worker for one in watched.all(Exited)}
            assert [] == watched.all(GaveUp)

    asyncio.run(main())


def test_refusing_broker_is_waited_for(tmp_path: Path, own_valkey: Valkey) -> None:
    """A broker that is there and stores nothing, as with a full disk, costs no worker either."""
    what = topology(
        tmp_path,
        WorkerSpec(name="plain", working_dir=tmp_path, joins=True, worker="own_workers:Plain"),
        url=own_valkey.url,
    )

    async def main() -> None:
        async with supervised(restarting(what, max_exits=1)) as watched:
            await watched.state("plain", "ready")
            own_valkey.command("CONFIG", "SET", "min-replicas-to-write", "1")
            client = watched.supervisor._bus_client
            assert client is not None
            await until(lambda: client.broker.is_away)
            psutil.Process(watched.process("plain").pid).kill()
            await watched.until(lambda: waiting(watched) == {"plain"})
            async with connect(own_valkey.url, channel="pbus:app") as onlooker:
                await onlooker.leases.leases()  # as `pbus ps` reads it, and is not refused
            own_valkey.command("CONFIG", "SET", "min-replicas-to-write", "0")
            await watched.nth(Started, 2)
            await watched.state("plain", "ready")
            assert [] == watched.all(GaveUp)

    asyncio.run(main())


def test_loading_server_is_waited_for(own_valkey: Valkey, channel: str) -> None:
    """A server that still reads its file is not ready: a start waits, or says so; no worker fails."""
    kept = ("--appendonly", "yes", "--aof-use-rdb-preamble", "no")
    own_valkey.kill()
    own_valkey.start_with(*kept)
    with redis.Redis.from_url(own_valkey.url) as client:
        client.eval("for i = 1, 16000 do redis.call('SET', 'k' .. i, i) end", 0)
    own_valkey.kill()
    slowly = ("--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024")
    own_valkey.start_with(*kept, *slowly)

    async def join(delivery: str) -> list[str]:
        bus = connect(own_valkey.url, channel=f"{channel}-{delivery}", delivery=delivery)
        reason = ""
        while "loading the dataset" not in reason:  # a busy server answers now and then
            with pytest.raises(BusUnavailableError) as refused:
                await bus.start(timeout=1.0)
            reason = refused.value.reason
        runner = WorkerRunner(
            bus=bus, start_timeout=PATIENCE_S
        )  # a loaded machine loads for longer
        await runner.add_workers(BaseWorker("w"))
        runner.add_event_handler("on_ready", lambda runner: runner.end())
        await asyncio.wait_for(runner.run(), PATIENCE_S)
        return [error.error for error in runner.errors]

    async def main() -> None:
        assert [[], []] == await asyncio.gather(join("at-most-once"), join("at-least-once"))

    asyncio.run(main())
