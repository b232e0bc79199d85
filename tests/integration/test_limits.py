"""Limits of workers with real processes: recycled over one, one replica after the other."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from pbus.process.supervisor.changes import recycling
from pbus.process.supervisor.changes.recycling import Recycling
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor_events import Line, StateChanged
from pbus.topology.policy.policies import Dependency, LimitsSpec, LogProbe, ReadySpec, RestartSpec
from support.supervisor_helpers import program, supervised, topology

pytestmark = pytest.mark.redis

ONCE = RestartSpec(max_exits=1)  # an exit that counted would be the last
# The first process of each replica uses 96 MB once `go` is there; its successors use little.
GREEDY = """
import os, pathlib, time
marker = pathlib.Path("was-" + os.environ["PBUS_REPLICA"])
print("up", flush=True)
while not os.path.exists("go"): time.sleep(0.01)
if not marker.exists():
    marker.touch()
    kept = b"x" * (96 << 20)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has state and sockets of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_memory_of_the_group_one_replica_at_a_time(tmp_path: Path):
    """A shell's child counts, the second replica waits until the first is ready, no exit counts."""
    (tmp_path / "greedy.py").write_text(GREEDY)
    what = topology(
        tmp_path,
        program(
            "greedy",
            "",
            tmp_path,
            command=("sh", "-c", f"{sys.executable} greedy.py; true"),
            replicas=2,
            ready=ReadySpec(probe=LogProbe("up")),
            limits=LimitsSpec(memory_bytes=64 << 20),
            restart=ONCE,
        ),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            for name in ("greedy.1", "greedy.2"):
                await watched.state(name, "ready")
            (tmp_path / "go").touch()
            for name in ("greedy.1", "greedy.2"):
                await watched.until(lambda name=name: watched.states(name).count("ready") == 2)
            await watched.until(lambda: watched.states("greedy.3").count("exited") >= 2)
            stopping = [one for one in watched.all(StateChanged) if one.state == "stopping"]
            reasons = [one.detail for one in stopping if one.worker != "greedy.3"]
            assert 2 == len(reasons)
            assert fewest_ready(watched.all(StateChanged)) >= 2
            for reason in reasons:
                assert reason.startswith("recycled: ")
                assert reason.endswith(" MB of memory, more than 64 MB")
                assert reason in [one.text for one in watched.all(Line) if one.stream == "pbus"]
            assert 1 == most_down(watched.all(StateChanged))
            assert {"greedy.1", "greedy.2"} == {
                one.name for one in watched.supervisor.record().processes
            }
            assert 0 == await watched.stop()

    asyncio.run(main())


def most_down(changes: list[StateChanged]) -> int:
    """How many workers were down at once, from the time that all were ready."""
    changes = [one for one in changes if one.worker != "greedy.3"]  # the one more
    workers = {one.worker for one in changes}
    states: dict[str, str] = {}
    most = 0
    has_begun = False
    for change in changes:
        states[change.worker] = change.state
        down = len([one for one in workers if states.get(one) != "ready"])
        has_begun = has_begun or not down
        most = max(most, down) if has_begun else 0
    return most


def fewest_ready(changes: list[StateChanged]) -> int:
    """How many were ready at least, from the time that two were, before all are stopped."""
    states: dict[str, str] = {}
    counts = []
    for change in changes:
        states[change.worker] = change.state
        counts.append(list(states.values()).count("ready"))
    return min(counts[counts.index(2) :])


def test_recycled_in_place_without_room(tmp_path: Path):
    """Where one more replica does not become ready, the old one is replaced all the same."""
    code = (
        "import os, time\n"
        "assert os.environ['PBUS_REPLICA'] == '1', 'no room'\n"
        "print('up', flush=True); time.sleep(600)"
    )
    spec = program(
        "tight",
        code,
        tmp_path,
        replicas=1,
        ready=ReadySpec(probe=LogProbe("up")),
        limits=LimitsSpec(age_s=0.5),
        restart=ONCE,
    )

    async def main() -> None:
        async with supervised(topology(tmp_path, spec)) as watched:
            await watched.until(lambda: watched.states("tight.1").count("ready") == 2)
            assert "failed" in watched.states("tight.2")
            assert 0 == await watched.stop()

    asyncio.run(main())


def test_age(tmp_path: Path):
    """A process is replaced when it is old enough, again and again."""
    spec = program(
        "old", "import time; time.sleep(600)", tmp_path, limits=LimitsSpec(age_s=1.0), restart=ONCE
    )

    async def main() -> None:
        async with supervised(topology(tmp_path, spec)) as watched:
            await watched.until(lambda: watched.states("old").count("ready") == 3)
            assert 2 == watched.process("old").restarts
            details = [one.detail for one in watched.all(StateChanged) if one.state == "stopping"]
            assert all(one.startswith("recycled: it has run for ") for one in details)
            assert 0 == await watched.stop()

    asyncio.run(main())


def test_peak_is_no_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Three measurements in a row must be over the limit, of one process."""

    class OneChild:
        pid, incarnation, code = 7, "a", None

    spec = program("peaky", "", tmp_path, limits=LimitsSpec(memory_bytes=1024))
    worker = WorkerProcess(spec.instances()[0], asyncio.Event())
    child: Any = OneChild()
    worker.status.child, worker.status.state = child, "ready"
    rolling: Any = None  # for replicas only
    watch = Recycling([worker], rolling)
    for used in (2000, 2000, 1024, 2000, 2000):
        monkeypatch.setattr(recycling, "group_memory", lambda _pids, used=used: {7: used})
        watch.check()
        assert not worker.target.restart_requested
    child.incarnation = "b"
    watch.check()
    watch.check()
    assert not worker.target.restart_requested
    watch.check()
    assert "recycled: 2,000 bytes of memory, more than 1,024 bytes" == worker.target.reason


def test_restart_while_waiting_is_the_start(tmp_path: Path):
    """A worker that is restarted while it waits for a dependency is started once."""
    slow = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('up'); time.sleep(600)"
    forever = "import time; time.sleep(600)"
    what = topology(
        tmp_path,
        program("base", slow, tmp_path, ready=ReadySpec(probe=LogProbe("up"))),
        program("top", forever, tmp_path, depends_on=(Dependency(worker="base"),)),
    )

    async def main() -> None:
        async with supervised(what) as watched:
            await watched.state("top", "waiting")
            watched.supervisor.workers["top"].restart()
            (tmp_path / "go").touch()
            await watched.state("top", "ready")
            assert 0 == await watched.stop()
            assert ["waiting", "starting", "ready"] == watched.states("top")[:3]
            assert 0 == watched.process("top").restarts

    asyncio.run(main())
