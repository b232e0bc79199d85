"""Whether a start went well, told from what processes and registry show."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pbus.bus.memory import AsyncQueueBus
from pbus.client import Client, attachment, readiness
from pbus.client.readiness import Readiness, poll_pause_s
from pbus.errors import NotReadyError, ProcessError, StartupError
from pbus.leases import LEASE_S, Lease
from pbus.observe import HostRecord, ProcessRecord, WorkerRow, merge_rows
from pbus.process.project.record import ProjectRecord
from pbus.process.system import groups
from pbus.settings import BusSettings
from pbus.topology.model import Topology, WorkerSpec
from pbus.topology.policy.policies import RestartSpec
from pbus.topology.selection import Selection


def spec(name: str, **changes: Any) -> WorkerSpec:
    """A declared program that is ready when started."""
    return WorkerSpec(name=name, working_dir=Path("/"), joins=False, **changes)


def topology(*specs: WorkerSpec) -> Topology:
    """A topology of these."""
    return Topology(
        name="t", file=Path("/t.yaml"), folder=Path("/"), bus=BusSettings(channel="c"),
        workers={one.name: one for one in specs},
    )  # fmt: skip


def process(name: str, state: str, **changes: Any) -> ProcessRecord:
    """A process as its supervisor sees it."""
    return ProcessRecord(name=name, state=state, joins=False, **changes)


def look(readiness: Readiness, *processes: ProcessRecord) -> list[str]:
    """Let it see these processes; who is newly ready."""
    host = HostRecord(
        project="t", host="h", pid=1, session="s", time=0.0, bus="b", processes=processes
    )
    rows: list[WorkerRow] = merge_rows([], [host], 0.0)
    return readiness.look(rows, [host])


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (
            process("a", "backoff", exit_code=-15, reason="not ready within 1 s: no line"),
            "not ready within 1 s: no line before it was ready",
        ),
        (
            process("a", "failed", exit_code=78, reason="its class is missing", error="no X"),
            "its class is missing; last line: no X",
        ),
        (
            process("a", "starting", restarts=1, last_end="exited with code 3: boom"),
            "exited with code 3: boom before it was ready",
        ),
    ],
)
def test_verdict_goes_before_the_signal(one: ProcessRecord, expected: str) -> None:
    """The cause is said, not the signal by which pbus ended the process; also while it starts again."""
    readiness = Readiness.of(topology(spec("a")).instances())
    look(readiness, one)
    assert {"a": expected} == readiness.failed


def test_ready_one_by_one() -> None:
    """Each is told once; those not ready are missing."""
    readiness = Readiness.of(topology(spec("a"), spec("b")).instances())

    assert [] == look(readiness)
    assert ["a"] == look(readiness, process("a", "ready"), process("b", "starting"))
    assert ["b"] == readiness.missing
    assert ["b"] == look(readiness, process("a", "ready"), process("b", "ready"))
    assert [] == readiness.missing


def test_finished_counts_as_ready() -> None:
    """A worker that did its work and left is no problem."""
    readiness = Readiness.of([*topology(spec("once")).instances()])

    assert ["once"] == look(readiness, process("once", "exited", exit_code=0, has_succeeded=True))


@pytest.mark.parametrize(
    "culprit",
    [
        process("a", "failed", exit_code=1, error="ImportError: no"),
        process("a", "backoff", exit_code=1, error="ImportError: no"),
        process("a", "exited", exit_code=2, error="ImportError: no"),
        process("a", "starting", restarts=1, error="ImportError: no"),
    ],
    ids=lambda culprit: culprit.state,
)
def test_early_exit_is_failure(culprit: ProcessRecord) -> None:
    """Who failed before being ready ends the wait, with a word why."""
    readiness = Readiness.of(topology(spec("a"), spec("b")).instances())

    look(readiness, process("b", "starting"), culprit)

    assert (["a"], ["b"]) == (list(readiness.failed), list(readiness.waiting))
    error = StartupError(readiness.failed, readiness.waiting)
    assert re.search("'a' failed: .*ImportError: no", error.message)
    assert "worker 'b' is not ready: starting" in error.message
    assert ("a",) == error.workers


def test_later_crash_is_no_failure() -> None:
    """Who was ready once may be restarted; the wait goes on for it."""
    readiness = Readiness.of(topology(spec("a")).instances())
    look(readiness, process("a", "ready"))

    assert [] == look(readiness, process("a", "backoff", exit_code=1))
    assert ["a"] == readiness.missing


def test_always_restarted_may_end() -> None:
    """A worker that is to run for ever may end well before it is ready."""
    readiness = Readiness.of(topology(spec("a", restart=RestartSpec(policy="always"))).instances())

    assert [] == look(readiness, process("a", "backoff", exit_code=0, restarts=2))


async def waited(
    *processes: ProcessRecord, names: tuple[str, ...] = (), leases: tuple[str, ...] = ()
) -> list[str]:
    """The workers that a client finds ready at once, when these run."""
    async with AsyncQueueBus() as bus, Client(bus) as client:
        record = HostRecord(
            project="t", host="h", pid=1, session="s", time=0.0, bus="b", processes=processes
        )
        await bus.leases.put_record("one", msgspec.json.encode(record), ttl_s=LEASE_S)
        for name in leases:
            await bus.leases.claim(
                Lease(name=name, incarnation=name, runner="r", host="h", pid=1, state="ready")
            )
        return await client.wait_ready(*names, timeout=0.0)


def test_client_waits_for_all() -> None:
    """Supervised or not; a name stands for all replicas, and those that have left well count."""
    ready = [process("x.1", "ready"), process("x.2", "exited", exit_code=0, has_succeeded=True)]

    assert ["x.1", "x.2", "own"] == asyncio.run(waited(*ready, leases=("own",)))
    assert ["x.1", "x.2"] == asyncio.run(
        waited(*ready, process("y", "starting"), names=("x",), leases=("own",))
    )


@pytest.mark.parametrize(
    ("processes", "names", "problem"),
    [
        ((process("a", "starting"),), (), "a (starting)"),
        ((process("a", "backoff", exit_code=1, reason="crashed"),), (), "a (backoff, crashed)"),
        ((process("a", "ready"),), ("a", "b"), "b (not started yet)"),
        ((process("x.1", "ready"), process("x.2", "stopping")), ("x",), "x.2 (stopping)"),
        ((), (), "the supervisor"),
    ],
    ids=lambda value: str(value)[-20:],
)
def test_late_workers_are_named(
    processes: tuple[ProcessRecord, ...], names: tuple[str, ...], problem: str
) -> None:
    """With their states; one that is restarted may still become ready."""
    with pytest.raises(NotReadyError) as caught:
        asyncio.run(waited(*processes, names=names))
    assert f"not ready within 0 s: {problem}" == caught.value.message


def test_given_up_worker_ends_the_wait() -> None:
    """Its supervisor starts it no more."""
    with pytest.raises(StartupError) as caught:
        asyncio.run(waited(process("a", "failed", exit_code=1), process("b", "starting")))
    assert (("a",), {"b": "starting"}) == (caught.value.workers, caught.value.waiting)


def test_ended_project_is_noticed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that ends by itself takes its broker along: that one is not waited for."""
    monkeypatch.setattr(attachment, "CONNECT_S", 600.0)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    supervisor = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = ProjectRecord(
        name="t", folder="/", file="/t.yaml", session="s", pid=supervisor.pid,
        pid_created=groups.start_time(supervisor.pid) or 0.0,
        bus=BusSettings(url=f"unix://{tmp_path}/none.sock", channel="c"),
    )  # fmt: skip
    monkeypatch.setattr(readiness, "choose_project", lambda *_: record)

    async def main() -> None:
        waiting = asyncio.ensure_future(
            readiness.wait_started(
                topology(spec("a"), spec("b")), Selection(), since=0.0, timeout_s=50.0,
                on_ready=lambda _: None,
            )
        )  # fmt: skip
        await asyncio.sleep(0)
        supervisor.communicate(b"\n")
        await waiting

    with pytest.raises(ProcessError, match="t was stopped before all were ready: a never started"):
        asyncio.run(main())


@pytest.mark.parametrize(("missing", "seconds"), [(0, 0.2), (20, 0.2), (100, 1.0), (5000, 2.0)])
def test_looks_are_rarer_where_many_are_missing(missing: int, seconds: float) -> None:
    """A look reads all workers: many that start slowly are looked at less often, none later than in 2 s."""
    assert seconds == poll_pause_s(missing)
