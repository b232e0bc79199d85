"""Worker classes as processes: loaded, joined, supervised over the bus."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pbus.bus.connect import connect
from pbus.bus.subscriber import BusSubscriber
from pbus.errors import WorkerLoadError
from pbus.messages import BusEndMessage, BusMessage, BusWorkerRegistryMessage
from pbus.observe import HostRecord, merge_rows
from pbus.process.child import load_worker
from pbus.process.supervisor.worker import shutdown
from pbus.process.supervisor_events import (
    BrokerReady,
    Exited,
    GaveUp,
    Line,
    Ready,
    SessionEnded,
    Started,
)
from pbus.process.system.launch_plan import WorkerLaunchSpec
from pbus.topology.model import WorkerSpec
from pbus.topology.policy.policies import RestartSpec, StopSpec
from support.supervisor_helpers import (
    PATIENCE_S,
    Watched,
    program,
    restarting,
    supervised,
    topology,
)
from support.valkey import Valkey
from support.waiting import until

WORKERS = """
import asyncio, os, sys, time
from pbus import BaseWorker, job, worker_ready

class Plain(BaseWorker):
    def __init__(self, name, greeting="hi"):
        super().__init__(name)
        self.greeting = greeting
    async def start(self):
        print(self.greeting, self.name, self.active, file=sys.stderr)
    async def stop(self):
        print("stopped", self.name, flush=True)
    @job(name="crash")
    async def crash(self, request):
        os._exit(9)
    @job(name="end")
    async def end_it(self, request):
        await self.end("all done")

class Broken(BaseWorker):
    async def start(self):
        raise ValueError("no way to start")

class Blocked(BaseWorker):
    async def start(self):
        self.create_task(self.block())
    async def block(self):
        while not os.path.exists("block"):
            await asyncio.sleep(0.01)
        time.sleep(600)

class Sour(BaseWorker):
    def __init__(self, name):
        raise KeyError("sour")

class Slow(BaseWorker):
    async def start(self):
        print("slow", flush=True)
        await asyncio.sleep(600)

class Watcher(BaseWorker):
    @worker_ready(name="a")
    async def on_a(self, data):
        print("ready", data.worker_name, flush=True)
    async def on_worker_lost(self, data):
        print("lost", data.worker_name, data.reason, flush=True)

class NoWorker: pass
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state, sockets and worker classes of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "own_workers.py").write_text(WORKERS)
    (tmp_path / "sick.py").write_text("import does_not_exist\n")


def hosted(name: str, folder: Path, kind: str = "own_workers:Plain", **changes: Any) -> WorkerSpec:
    """A worker that is a class."""
    values: dict[str, Any] = {"name": name, "working_dir": folder, "joins": True, "worker": kind}
    return WorkerSpec(**{**values, **changes})


class Listener(BusSubscriber):
    """Another process on the bus that records announcements."""

    name = "listener"

    def __init__(self) -> None:
        self.gone: list[tuple[str, str]] = []

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return isinstance(message, BusWorkerRegistryMessage)

    async def on_bus_message(self, message: BusMessage) -> None:
        assert isinstance(message, BusWorkerRegistryMessage)
        self.gone += [(one.name, one.gone) for one in message.workers if one.gone is not None]


async def rows(watched: Watched) -> dict[str, Any]:
    """What `ps` would show, out of the broker alone."""
    store = watched.supervisor.bus.leases
    hosts = [
        msgspec.json.decode(record, type=HostRecord) for record in (await store.records()).values()
    ]
    return {row.name: row for row in merge_rows(await store.leases(), hosts, time.time())}


async def until_shown(
    watched: Watched, claim: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Wait until a claim about those rows holds: the broker learns later what a supervisor knows."""
    shown: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not claim(shown := await rows(watched)):
                await asyncio.sleep(0.02)
    except TimeoutError:
        known = {one.name: one for one in watched.supervisor.record().processes}
        raise AssertionError(f"shown last: {shown}; the supervisor knows: {known}") from None
    return shown


def all_ready(*names: str) -> Callable[[dict[str, Any]], bool]:
    """Whether these and no others are shown, all ready."""
    return lambda shown: (
        {name: row.state for name, row in shown.items()} == dict.fromkeys(names, "ready")
    )


def test_workers_join_and_end(tmp_path: Path):
    """Classes are constructed as declared, become ready, and are asked to end before signals."""
    what = topology(
        tmp_path,
        hosted("a", tmp_path, args={"greeting": "good day"}),
        hosted("b", tmp_path, replicas=2, active=False),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            for name in ("a", "b.1", "b.2"):
                await watched.state(name, "ready")
            await watched.line("good day a True")
            await watched.line("hi b.1 False")
            shown = await until_shown(watched, all_ready("a", "b.1", "b.2"))
            assert [True, False, False] == [shown[name].active for name in ("a", "b.1", "b.2")]

            assert 0 == await watched.stop()
            assert [0, 0, 0] == [one.code for one in watched.all(Exited)]
            assert {"stopped a", "stopped b.1", "stopped b.2"} <= {
                one.text for one in watched.all(Line)
            }

    asyncio.run(main())


def test_crash_is_announced(tmp_path: Path):
    """A worker that dies is gone from the registry at once, and comes back as another incarnation."""
    what = topology(tmp_path, hosted("a", tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            first = await watched.nth(Started)
            await watched.state("a", "ready")
            url = (await watched.nth(BrokerReady)).url
            listener = Listener()
            async with connect(url, channel="pbus:app", key=watched.key) as bus:
                await bus.subscribe(listener)
                os.kill(first.pid, signal.SIGKILL)
                await watched.nth(Ready, 2)
                # An expired lease would not give this reason.
                await until(lambda: ("a", "was killed by SIGKILL") in listener.gone)
            second = await watched.nth(Started, 2)
            lease = (await watched.supervisor.bus.leases.leases())[0]
            assert lease.incarnation.startswith(second.incarnation)
            assert lease.pid == second.pid

    asyncio.run(main())


def test_watchers_hear_of_death(tmp_path: Path):
    """Another worker hears at once that one died, and then that it is back."""
    what = topology(tmp_path, hosted("a", tmp_path), hosted("w", tmp_path, "own_workers:Watcher"))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.line("ready a")
            pid = watched.process("a").pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await watched.line("lost a was killed by SIGKILL")  # a lease would end without reason
            await watched.line("ready a", times=2)

    asyncio.run(main())


OWN_RUNNER = """
import asyncio, os, pbus

class Own(pbus.BaseWorker):
    pass

async def main():
    bus = pbus.connect(os.environ["PBUS_URL"], channel=os.environ["PBUS_CHANNEL"])
    runner = pbus.WorkerRunner(bus=bus, session=os.environ["PBUS_SESSION"])
    await runner.add_workers(Own(os.environ["PBUS_WORKER"]))
    await runner.run()

asyncio.run(main())
"""


def test_command_may_join(tmp_path: Path):
    """A program that joins the bus by itself is ready when registered, and ends when asked."""
    what = topology(tmp_path, program("own", OWN_RUNNER, tmp_path, joins=True))

    async def main() -> None:
        async with supervised(what) as watched:
            record = await watched.state("own", "ready")
            assert record.pid is not None
            await until_shown(watched, all_ready("own"))
            os.kill(record.pid, signal.SIGKILL)
            await watched.nth(Ready, 2)
            assert 0 == await watched.stop()
            assert [-signal.SIGKILL, 0] == [one.code for one in watched.all(Exited)]

    asyncio.run(main())


def test_taken_name_is_refused(tmp_path: Path):
    """Two topologies on one channel: the second worker of a name fails and says who has it."""

    async def main(url: str) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        for folder in (one, two):
            folder.mkdir()
            (folder / "own_workers.py").write_text(WORKERS)
        async with supervised(topology(one, hosted("a", one), url=url)) as first:
            await first.state("a", "ready")
            other = restarting(
                topology(two, hosted("a", two), url=url), initial_s=0.01, max_exits=2
            )
            async with supervised(other) as second:
                assert 1 == await second.code()
                (gave_up,) = second.all(GaveUp)
                assert "the worker name 'a' is taken" in "\n".join(gave_up.last_lines)
            assert "ready" == first.process("a").state
            assert [first.process("a").pid] == [
                one.pid for one in await first.supervisor.bus.leases.leases()
            ]

    with Valkey() as valkey:
        asyncio.run(main(valkey.url))


def test_session_end_ends_all(tmp_path: Path):
    """When the session is ended everybody leaves, nothing is restarted, and the code is 0."""
    forever = "import time; time.sleep(600)"
    what = topology(
        tmp_path,
        hosted("a", tmp_path, restart=RestartSpec(policy="always")),
        hosted("b", tmp_path, restart=RestartSpec(policy="always")),
        program("side", forever, tmp_path, restart=RestartSpec(policy="always")),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("a", "ready")
            await watched.state("b", "ready")
            await watched.state("side", "ready")
            session = watched.supervisor.session
            bus = watched.supervisor.bus
            await bus.send(BusEndMessage(source="x", session="another"))
            await bus.send(BusEndMessage(source="x", session=session, reason="enough"))

            assert 0 == await watched.code()
            assert [SessionEnded("ended by x: enough")] == watched.all(SessionEnded)
            assert {"a": 0, "b": 0, "side": -signal.SIGTERM} == {
                one.worker: one.code for one in watched.all(Exited)
            }
            assert 3 == len(watched.all(Started))

    asyncio.run(main())


def test_blocked_loop_is_shown(tmp_path: Path):
    """A worker whose loop is blocked shows as unresponsive, not lost, and is stopped by force."""
    stop = StopSpec(grace_s=0.2)
    what = topology(tmp_path, hosted("a", tmp_path, "own_workers:Blocked", stop=stop))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("a", "ready")
            (tmp_path / "block").touch()
            await until_shown(
                watched, lambda shown: "a" in shown and shown["a"].state == "unresponsive"
            )
            assert "ready" == watched.process("a").state
            assert 0 == await watched.stop()
            assert [-signal.SIGKILL] == [one.code for one in watched.all(Exited)]

    asyncio.run(main())


def test_killed_broker_is_rejoined(tmp_path: Path):
    """After the broker was killed the same workers are registered again."""
    what = topology(tmp_path, hosted("a", tmp_path), hosted("b", tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            pids = {(await watched.state(name, "ready")).pid for name in ("a", "b")}
            broker = watched.supervisor._services._broker
            assert broker is not None
            assert broker.process is not None
            broker.process.kill()
            await watched.nth(BrokerReady, 2)
            async with asyncio.timeout(PATIENCE_S):
                while {one.pid for one in await watched.supervisor.bus.leases.leases()} != pids:
                    await asyncio.sleep(0.05)
            await until_shown(watched, all_ready("a", "b"))
            assert 2 == len(watched.all(Started))
            assert 0 == await watched.stop()

    asyncio.run(main())


def test_start_may_take_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A worker that hangs in start() stays starting, and a stop ends it, which does not ask it."""
    monkeypatch.setattr(shutdown.terminate, "__defaults__", (shutdown.Deadlines(ask_s=1000),))
    what = topology(tmp_path, hosted("a", tmp_path, "own_workers:Slow"))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.line("slow")
            assert "starting" == watched.process("a").state
            await until_shown(
                watched, lambda shown: "a" in shown and shown["a"].state == "starting"
            )
            assert 0 == await watched.stop()
            assert [] == watched.all(Ready)

    asyncio.run(main())


BAD = {  # what is said, and how often it is started again
    "sick:Any": ("ModuleNotFoundError: No module named 'does_not_exist'", 0),
    "own_workers:Broken": ("ValueError: no way to start", 1),
    "own_workers:Missing": ("own_workers.py has no Missing", 0),
    "own_workers:Sour": ("KeyError: 'sour'", 1),
}


def test_bad_class_fails(tmp_path: Path):
    """A class that cannot be started is given up, one that is not there at once; its log says why."""
    names = {kind.lower().replace(":", "-"): kind for kind in BAD}
    what = topology(tmp_path, *(hosted(name, tmp_path, kind) for name, kind in names.items()))
    what = restarting(what, initial_s=0.01, max_exits=2)

    async def main() -> None:
        async with supervised(what) as watched:
            assert 1 == await watched.code()
            gave_up = {event.worker: event for event in watched.all(GaveUp)}
            assert set(names) == set(gave_up)
            for name, kind in names.items():
                said, restarts = BAD[kind]
                assert said in "\n".join(gave_up[name].last_lines)
                assert restarts == watched.process(name).restarts

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "args", "expected"),
    [
        ("own_workers:NoWorker", {}, "is no subclass of BaseWorker"),
        ("own_workers:Missing", {}, "has no Missing"),
        (
            "own_workers:Plain",
            {"volume": 3},
            r"unexpected keyword argument 'volume' \(args: volume\)",
        ),
        ("nowhere:Plain", {}, "No module named 'nowhere'"),
    ],
)
def test_load_says_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, args: dict[str, Any], expected: str
):
    """What is wrong with a class reference is said in one sentence."""
    monkeypatch.syspath_prepend(str(tmp_path))
    order = WorkerLaunchSpec(
        worker=kind, args=args, active=True, files=(str(tmp_path / "topology.yaml"),)
    )

    with pytest.raises(WorkerLoadError, match=expected):
        load_worker(order, "a")
