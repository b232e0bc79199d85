"""The supervisor with real processes, its own Valkey and its guard."""

import asyncio
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from pbus.errors import (
    BusUnavailableError,
    NothingRunningError,
    ProjectRunningError,
    TopologyError,
)
from pbus.process.project.discovery import choose_project
from pbus.process.project.log_reader import read_lines
from pbus.process.project.project import Project
from pbus.process.project.project_lock import ProjectLock, token_of
from pbus.process.supervisor import bus_client
from pbus.process.supervisor.supervisor import Supervisor
from pbus.process.supervisor.worker import shutdown
from pbus.process.supervisor_events import (
    BrokerLost,
    BrokerReady,
    Exited,
    GaveUp,
    Line,
    Ready,
    Started,
    StateChanged,
    Stopped,
)
from pbus.process.system.groups import members
from pbus.topology.policy.policies import RestartSpec
from pbus.topology.selection import Selection
from support.supervisor_helpers import is_alive, program, restarting, supervised, topology
from support.valkey import Valkey
from support.waiting import PATIENCE_S, until

FOREVER = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state and sockets of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


_elders: set[int] = set()


@pytest.fixture(autouse=True)
def _know_elders() -> None:
    """Processes that were here before the test, like the Valkey that other tests share."""
    _elders.clear()
    _elders.update(child.pid for child in psutil.Process().children())


def children() -> list[psutil.Process]:
    """Child processes that the test has started."""
    return [child for child in psutil.Process().children() if child.pid not in _elders]


def test_all_programs_finish(tmp_path: Path):
    """When every program ended well the run is over with code 0, and all lines are in the logs."""
    what = topology(
        tmp_path,
        program("a", "print('hello')", tmp_path),
        program("b", "import sys; print('oops', file=sys.stderr)", tmp_path, replicas=2),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            assert 0 == await watched.code()

            assert ["a", "b.1", "b.2"] == sorted(one.worker for one in watched.all(Ready))
            assert [0, 0, 0] == [one.code for one in watched.all(Exited)]
            assert Stopped(0) == watched.events[-1]
            lines = {
                (line.worker, line.stream, line.text)
                for line in read_lines(watched.project.log_paths())
                if line.stream != "pbus"
            }
            assert {
                ("a", "out", "hello"), ("b.1", "err", "oops"), ("b.2", "err", "oops"),
            } == lines  # fmt: skip

    asyncio.run(main())


def test_failed_program_sets_code(tmp_path: Path):
    """When all is over and some program failed, the run's code is 1."""
    what = topology(
        tmp_path,
        program("good", "print('fine')", tmp_path),
        program(
            "bad",
            "print('why'); raise SystemExit(3)",
            tmp_path,
            restart=RestartSpec(policy="never"),
        ),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            assert 1 == await watched.code()
            assert [GaveUp("bad", "exited with code 3", ("why",), "why")] == watched.all(GaveUp)
            record = watched.process("bad")
            assert ("failed", 3, "why") == (record.state, record.exit_code, record.error)

    asyncio.run(main())


def test_crash_loop_is_given_up(tmp_path: Path):
    """A program that crashes at once is restarted with growing delays, then failed; others live."""
    what = topology(
        tmp_path,
        program("crash", "raise SystemExit(1)", tmp_path),
        program("other", FOREVER, tmp_path),
    )
    what = restarting(what, initial_s=0.02)

    async def main() -> None:
        async with supervised(what) as watched:
            record = await watched.state("crash", "failed")
            assert 4 == record.restarts
            assert 5 == len([one for one in watched.all(Exited) if one.worker == "crash"])
            assert "ready" == watched.process("other").state
            assert 0 == await watched.stop()

    asyncio.run(main())


def test_killed_program_comes_back(tmp_path: Path):
    """A program that is killed shows as backoff with its signal, and runs again 0.5 s later."""
    what = topology(tmp_path, program("a", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            first = await watched.nth(Started)
            await watched.line("up")
            psutil.Process(first.pid).kill()
            exited = await watched.nth(Exited)
            second = await watched.nth(Started, 2)
            # Times as the supervisor wrote them down, and not when we came to see it.
            told = {one.text.partition(",")[0]: one.time for one in watched.all(Line)}

            assert -signal.SIGKILL == exited.code
            assert StateChanged("a", "backoff", "was killed by SIGKILL, restarts in 0.5 s") in (
                watched.all(StateChanged)
            )
            assert told["started"] - told["was killed by SIGKILL"] >= 0.49
            assert second.incarnation != first.incarnation
            assert 1 == watched.process("a").restarts
            assert 0 == await watched.stop()
            assert not is_alive(second.pid)

    asyncio.run(main())


STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
os.fork()
os.write(1, b"deaf\\n")
time.sleep(600)
"""


def test_stop_leaves_none(tmp_path: Path):
    """A family that ignores SIGTERM is gone after the stop, with broker, guard and sockets."""
    what = topology(tmp_path, program("deaf", STUBBORN, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.line("deaf", times=4)
            await watched.until(lambda: watched.process("deaf").pid)  # it writes before it is known
            pid = watched.process("deaf").pid
            assert pid is not None
            family = [one.pid for one in members({pid})]
            servants = [one.pid for one in children()]
            began = time.monotonic()

            assert 0 == await watched.stop()

            assert 4 == len(family)
            assert time.monotonic() - began >= 3
            assert [] == [one for one in (*family, *servants) if is_alive(one)]
            assert not watched.project.runtime_dir.exists()
            with pytest.raises(NothingRunningError):
                choose_project("app", None, tmp_path)

    asyncio.run(main())


def test_second_stop_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A second request does not wait."""
    monkeypatch.setattr(shutdown.terminate, "__defaults__", (shutdown.Deadlines(term_s=1000),))
    what = topology(tmp_path, program("deaf", STUBBORN, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.line("deaf", times=4)
            watched.supervisor.request_stop("once")
            await watched.state("deaf", "stopping")

            assert 0 == await watched.stop()
            assert [-signal.SIGKILL] == [one.code for one in watched.all(Exited)]

    asyncio.run(main())


def test_stop_interrupts_opening(tmp_path: Path):
    """A stop while guard and broker start ends the run at once, with nothing left."""
    what = topology(tmp_path, program("a", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            while not children():
                await asyncio.sleep(0.001)
            assert 0 == await watched.stop()
            assert [Stopped(0)] == watched.events
            assert [] == children()

    asyncio.run(main())


def test_leftovers_end_with_leader(tmp_path: Path):
    """What a program leaves running ends before the program is started again."""
    code = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {FOREVER!r}])
time.sleep(0.3)
raise SystemExit(1)
"""
    what = topology(tmp_path, program("a", code, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            first = await watched.nth(Started)
            await watched.nth(Started, 2)
            assert [] == members({first.pid})

    asyncio.run(main())


def test_single_workers_obey(tmp_path: Path):
    """One worker is stopped, started and restarted while the run goes on."""
    what = topology(tmp_path, program("a", FOREVER, tmp_path), program("b", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("a", "ready")
            await watched.state("b", "ready")
            other = watched.process("b").pid

            watched.supervisor.workers["a"].stop()
            record = await watched.state("a", "exited")
            assert (None, -signal.SIGTERM) == (record.pid, record.exit_code)
            watched.supervisor.workers["a"].start()
            first = await watched.state("a", "ready")
            watched.supervisor.workers["a"].restart()
            await watched.until(
                lambda: (watched.process("a").restarts, watched.process("a").state) == (2, "ready")
            )

            assert first.pid != watched.process("a").pid
            assert other == watched.process("b").pid
            watched.supervisor.workers["a"].stop()
            watched.supervisor.workers["b"].stop()
            await watched.state("b", "exited")
            assert not watched.task.done()

    asyncio.run(main())


def test_second_supervisor_is_refused(tmp_path: Path):
    """A project has one supervisor: the second is refused with the pid, the first goes on."""
    what = topology(tmp_path, program("a", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("a", "ready")
            with pytest.raises(ProjectRunningError, match=f"pid {psutil.Process().pid}"):
                await Supervisor(what, Project.of(what)).run()

            record = choose_project("app", None, tmp_path)
            assert watched.supervisor.session == record.session
            assert 0 == await watched.stop()
        async with supervised(what) as watched:
            await watched.state("a", "ready")

    asyncio.run(main())


def test_killed_broker_is_replaced(tmp_path: Path):
    """The embedded broker is started again, at the same address, and no worker is touched."""
    what = topology(tmp_path, program("a", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            first = await watched.nth(BrokerReady)
            worker = (await watched.state("a", "ready")).pid
            (valkey,) = [one for one in children() if "valkey-server" in one.name()]
            valkey.kill()
            await watched.nth(BrokerLost)
            second = await watched.nth(BrokerReady, 2)

            assert first == second
            assert worker == watched.process("a").pid
            store = watched.supervisor.bus.leases
            async with asyncio.timeout(PATIENCE_S):
                while not await store.records():
                    await asyncio.sleep(0.05)

    asyncio.run(main())


def test_killed_guard_is_replaced(tmp_path: Path):
    """A guard that dies is started again and knows the groups: it ends them when we stop."""
    what = topology(tmp_path, program("a", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("a", "ready")
            guard = watched.supervisor._services.guard
            first = guard.pid
            psutil.Process(first).kill()
            await until(lambda: guard.pid != first)
            assert is_alive(guard.pid)
            assert 0 == await watched.stop()
            assert not is_alive(guard.pid)

    asyncio.run(main())


def test_removed_state_folder_is_made_again(tmp_path: Path):
    """Removing the state folder of a running project allows no second supervisor for it."""
    what = topology(tmp_path, program("a", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.line("up")
            before, token = watched.project.read_record(), token_of(watched.project)
            shutil.rmtree(watched.project.state_dir)
            while (record := watched.project.read_record()) is None:
                await asyncio.sleep(0.01)
            assert (before, token) == (record, token_of(Project.of(what)))
            with pytest.raises(ProjectRunningError):
                async with ProjectLock(Project.of(what)):
                    pass
            watched.supervisor.workers["a"].restart()
            await watched.line("up", 2)
            assert 0 == await watched.stop()
        assert "up" in watched.project.log_path("a").read_text()
        assert not watched.project.record_path.exists()

    asyncio.run(main())


def test_unreachable_broker_is_told(tmp_path: Path):
    """A URL where no server listens ends the run within 5 s, without the password."""
    url = "redis://user:geheim@127.0.0.1:1/0"
    what = topology(tmp_path, program("a", FOREVER, tmp_path), url=url)

    async def main() -> None:
        began = time.monotonic()
        async with supervised(what) as watched:
            with pytest.raises(BusUnavailableError) as caught:
                await watched.code()
        assert (
            time.monotonic() - began < bus_client._OWN_CONNECT_S
        )  # so long for a new one of our own
        assert "geheim" not in str(caught.value)
        assert [] == watched.events
        assert [] == children()

    asyncio.run(main())


def test_only_some_are_started(tmp_path: Path):
    """`only` takes workers and single replicas; a stranger in it is an error."""
    what = topology(
        tmp_path,
        program("a", "", tmp_path),
        program("b", "", tmp_path, replicas=2),
        program("c", "", tmp_path, replicas=2),
    )

    async def main() -> None:
        async with supervised(what, selection=Selection(only=frozenset({"b", "c.2"}))) as watched:
            assert 0 == await watched.code()
            assert ["b.1", "b.2", "c.2"] == sorted(one.worker for one in watched.all(Started))

    asyncio.run(main())
    with pytest.raises(TopologyError, match="no worker is named 'd'"):
        Supervisor(what, Project.of(what), selection=Selection(only=frozenset({"d"})))


def test_faulty_listener_harms_none(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A listener that raises is logged, and supervising goes on."""

    def fail(event: object) -> None:
        raise ValueError(event)

    what = topology(tmp_path, program("a", "", tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            watched.supervisor.listen(fail)
            assert 0 == await watched.code()

    asyncio.run(main())
    assert "a listener failed at Exited" in caplog.text


def test_flood_stops_none(tmp_path: Path):
    """A program that writes as fast as it can leaves the loop free for all else."""
    code = "while True: print('y')"
    what = topology(tmp_path, program("flood", code, tmp_path), program("a", FOREVER, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.line("y", times=20_000)
            watched.events.clear()
            worst = 0.0
            for _ in range(40):
                began = time.process_time()  # what others take is not the flood's doing
                await asyncio.sleep(0.01)
                worst = max(worst, time.process_time() - began)
            assert worst < 1.0
            watched.supervisor.workers["a"].restart()
            await watched.until(lambda: watched.process("a").restarts == 1)
            assert 0 == await watched.stop()
            assert {-signal.SIGTERM} == {one.code for one in watched.all(Exited)}

    asyncio.run(main())


def test_cancelled_run_leaves_none(tmp_path: Path):
    """A run that is cancelled from outside ends everything all the same."""
    what = topology(tmp_path, program("a", FOREVER, tmp_path), program("b", STUBBORN, tmp_path))

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.line("up")
            await watched.line("deaf", times=4)
            family = members({process.pid for process in children()})
            assert watched.task is not None
            watched.task.cancel()
            await asyncio.wait({watched.task}, timeout=PATIENCE_S)

            assert watched.task.cancelled()
            assert 7 == len(family)
            assert [] == [one for one in family if is_alive(one.pid)]

    asyncio.run(main())


def test_absent_broker_stops_none(tmp_path: Path):
    """While a foreign broker is away, programs are watched, restarted and stopped."""

    async def main(valkey: Valkey) -> None:
        what = topology(tmp_path, program("a", FOREVER, tmp_path), url=valkey.url)
        async with supervised(what) as watched:
            first = await watched.state("a", "ready")
            valkey.kill()
            await watched.nth(BrokerLost)
            assert first.pid is not None
            psutil.Process(first.pid).kill()
            await watched.nth(Started, 2)
            valkey.start()
            await watched.nth(BrokerReady, 2)
            valkey.kill()
            await watched.nth(BrokerLost, 2)
            assert 0 == await watched.stop()

    with Valkey() as valkey:
        asyncio.run(main(valkey))


def test_costs_are_measured(tmp_path: Path):
    """CPU and memory of each program are in the record."""
    what = topology(
        tmp_path,
        program("busy", "while True: pass", tmp_path),
        program("idle", FOREVER, tmp_path),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.line("up")  # from here on the idle one takes nothing
            # Other programs may leave the busy one little.
            await until(lambda: (watched.process("busy").cpu_percent or 0) > 5)
            await until(lambda: watched.process("idle").cpu_percent == 0)
            await until(lambda: (watched.process("idle").rss_bytes or 0) > 1_000_000)

    asyncio.run(main())
