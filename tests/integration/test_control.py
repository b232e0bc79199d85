"""Orders and state changes over the bus, with real supervisors and processes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pbus.bus.base import WorkerBus
from pbus.bus.connect import make_bus
from pbus.bus.subscriber import BusSubscriber
from pbus.messages import (
    STATES_ADDRESS,
    BusControlRequestMessage,
    BusControlResponseMessage,
    BusMessage,
    BusWorkerStateMessage,
)
from pbus.process.supervisor import broker_watch
from pbus.process.supervisor_events import BrokerReady, SessionEnded
from pbus.topology.policy.policies import RestartSpec
from support.supervisor_helpers import Watched, program, supervised, topology
from support.valkey import Valkey
from support.waiting import until

FOREVER = "import time; time.sleep(600)"
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state and sockets of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


class Terminal(BusSubscriber):
    """A user at another terminal: sends control requests, or follows the states."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: asyncio.Queue[BusMessage] = asyncio.Queue()
        self.bus: WorkerBus

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return isinstance(message, BusControlResponseMessage | BusWorkerStateMessage)

    async def on_bus_message(self, message: BusMessage) -> None:
        await self.heard.put(message)

    async def order(self, watched: Watched, action: str, *workers: str, order: str = "1") -> None:
        """Send an order."""
        address = watched.supervisor.record().address
        await self.bus.send(
            BusControlRequestMessage(
                source=self.name, target=address, request_id=order, action=action, workers=workers
            )
        )

    async def answer(self) -> tuple[str, str]:
        """The next answer: who, and what became of it."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self.heard.get()
        assert isinstance(message, BusControlResponseMessage)
        return message.worker, message.outcome

    async def change(self) -> BusWorkerStateMessage:
        """The next state change."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self.heard.get()
        assert isinstance(message, BusWorkerStateMessage)
        return message

    async def until(self, *states: str) -> BusWorkerStateMessage:
        """Wait for these states, one after the other; returns the last change."""
        for state in states:
            change = await self.change()
            while change.state != state:
                change = await self.change()
        return change


@contextlib.asynccontextmanager
async def terminal(watched: Watched, name: str = "cli-1") -> AsyncIterator[Terminal]:
    """A terminal on the bus of a supervisor."""
    await watched.nth(BrokerReady)
    there = Terminal(name)
    record = watched.project.read_record()
    assert record is not None
    async with make_bus(record.bus) as bus:
        there.bus = bus
        await bus.subscribe(there)
        yield there


def test_orders_are_carried_out(tmp_path: Path):
    """Stop, start and restart by message, each answered when it is so; others are not touched."""
    what = topology(
        tmp_path, program("a", FOREVER, tmp_path), program("b", FOREVER, tmp_path, replicas=2)
    )

    async def main() -> None:
        async with supervised(what) as watched, terminal(watched) as there:
            for name in ("a", "b.1", "b.2"):
                await watched.state(name, "ready")
            untouched = watched.process("b.1").pid

            await there.order(watched, "stop", "a", order="1")
            assert ("a", "done") == await there.answer()
            assert ("exited", None) == (watched.process("a").state, watched.process("a").pid)
            await there.order(watched, "start", "a", "b.1", order="2")
            assert {("a", "done"), ("b.1", "unchanged")} == {
                await there.answer(), await there.answer(),
            }  # fmt: skip
            first = watched.process("a").pid
            await there.order(watched, "restart", "a", order="3")
            assert ("a", "done") == await there.answer()
            assert watched.process("a").pid not in {None, first}
            assert untouched == watched.process("b.1").pid
            await there.order(watched, "restart", "x", order="4")
            assert ("x", "refused") == await there.answer()

    asyncio.run(main())


def test_failed_start_is_answered(tmp_path: Path):
    """A worker that ends badly before it is ready is told as failed, with its last words."""
    code = "import pathlib, sys, time\nif pathlib.Path('broken').exists(): sys.exit('no disk')\ntime.sleep(600)"
    what = topology(
        tmp_path, program("a", code, tmp_path, joins=True, restart=RestartSpec(policy="never"))
    )

    async def main() -> None:
        async with supervised(what) as watched, terminal(watched) as there:
            await watched.until(lambda: watched.process("a").pid)
            (tmp_path / "broken").touch()
            await there.order(watched, "restart", "a")
            async with asyncio.timeout(PATIENCE_S):
                answer = await there.heard.get()

            assert isinstance(answer, BusControlResponseMessage)
            assert ("a", "failed", "exited with code 1: no disk") == (
                answer.worker,
                answer.outcome,
                answer.detail,
            )

    asyncio.run(main())


def test_changes_are_told(tmp_path: Path):
    """A follower receives each change, the last ones included, with pid and reason."""
    what = topology(tmp_path, program("a", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            async with terminal(watched, STATES_ADDRESS) as there:
                await watched.state("a", "ready")
                watched.supervisor.workers["a"].restart()
                change = await there.until("stopping", "starting", "ready")
                first = watched.process("a").pid
                assert first is not None
                assert ("app", "a", "starting", first) == (
                    change.project, change.worker, change.previous, change.pid,
                )  # fmt: skip
                os.kill(first, signal.SIGKILL)
                told = [await there.change() for _ in range(3)]
                assert ["backoff", "starting", "ready"] == [one.state for one in told]
                assert "was killed by SIGKILL, restarts in 0.5 s" == told[0].detail
                assert first == told[0].pid != told[1].pid == watched.process("a").pid
                watched.supervisor.request_stop("the test is over")
                told = [await there.change() for _ in range(2)]
                assert ["stopping", "exited"] == [one.state for one in told]
                assert "was killed by SIGTERM" == told[1].detail
            assert 0 == await watched.code()

    asyncio.run(main())


def test_changes_survive_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What changes while the broker is away is told when those who follow may be back."""

    async def main(valkey: Valkey) -> None:
        what = topology(tmp_path, program("a", FOREVER, tmp_path), url=valkey.url)
        async with supervised(what) as watched, terminal(watched, STATES_ADDRESS) as there:
            await watched.state("a", "ready")
            watched.supervisor.workers["a"].restart()
            await there.until("stopping", "starting", "ready")
            first = watched.process("a").pid
            assert first is not None
            monkeypatch.setattr(broker_watch, "_STEADY_S", 1e12)  # ends when the follower is back
            valkey.kill()
            for bus in (there.bus, watched.supervisor.bus):
                await until(lambda bus=bus: not bus.is_connected)
            os.kill(first, signal.SIGKILL)
            await watched.until(lambda: watched.process("a").pid not in {None, first})
            valkey.start()
            await until(lambda: there.bus.is_connected)
            assert there.heard.empty()
            monkeypatch.setattr(broker_watch, "_STEADY_S", 0.0)
            told = [await there.change() for _ in range(3)]
            assert ["backoff", "starting", "ready"] == [one.state for one in told]

    with Valkey() as valkey:
        asyncio.run(main(valkey))


def test_hand_made_runner_joins_session(tmp_path: Path):
    """A program's own runner belongs to the session that started it: its end() ends that one."""
    (tmp_path / "own.py").write_text(
        "import asyncio, os\n"
        "from pbus import BaseWorker, WorkerRunner, connect\n"
        "class Ender(BaseWorker):\n"
        "    async def start(self):\n"
        "        await super().start()\n"
        "        await self.end('enough')\n"
        "async def main():\n"
        "    bus = connect(os.environ['PBUS_URL'], channel=os.environ['PBUS_CHANNEL'])\n"
        "    runner = WorkerRunner(bus=bus)\n"
        "    await runner.add_workers(Ender(os.environ['PBUS_WORKER']))\n"
        "    await runner.run()\n"
        "asyncio.run(main())\n"
    )
    spec = program("own", "", tmp_path, joins=True, command=(sys.executable, "own.py"))
    what = topology(tmp_path, spec, program("a", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            assert 0 == await watched.code()
            assert ["ended by own: enough"] == [one.reason for one in watched.all(SessionEnded)]

    asyncio.run(main())
