"""Health of a worker on the bus by its heartbeats, and the jobs after which it is replaced."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from pbus.leases import Lease
from pbus.process.supervisor.changes.recycling import Recycling
from pbus.process.supervisor.worker.probing import bus_problem
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.running_handlers import RunningHandler
from pbus.topology.model import WorkerSpec
from pbus.topology.policy.policies import BusProbe, LimitsSpec


def a_worker(**changes: Any) -> WorkerProcess:
    """A worker on the bus without a process."""
    spec = WorkerSpec(name="w", working_dir=Path("/"), joins=True, **changes)
    return WorkerProcess(spec.instances()[0], asyncio.Event())


def status_of(*, silent_s: float = 0.0, handler: RunningHandler | None = None) -> WorkerStatus:
    """The status after a lease was read."""
    now = time.time()
    lease = Lease(
        name="w", incarnation="i", runner="r", host="h", pid=1, beat=now - silent_s, handler=handler,
        done=3,
    )  # fmt: skip
    status = a_worker().status
    status.on_lease(lease, now)
    return status


def handler(age_s: float) -> RunningHandler:
    """One that began so long ago."""
    return RunningHandler(name="on_bus_message", type="T", source="stt", since=time.time() - age_s)


@pytest.mark.parametrize(
    ("probe", "silent_s", "age_s", "expected"),
    [
        (BusProbe(), 0.0, None, ""),
        (BusProbe(), 5.0, None, ""),
        (BusProbe(), 7.0, None, "its event loop is blocked: no heartbeat for 7 s"),
        (BusProbe(max_silence_s=60.0), 41.0, None, ""),
        (BusProbe(max_silence_s=60.0), 61.0, None, "its event loop is blocked: no heartbeat for 61 s"),
        (BusProbe(), 0.0, 1000.0, ""),
        (BusProbe(max_handler_s=30.0), 0.0, None, ""),
        (BusProbe(max_handler_s=30.0), 0.0, 29.0, ""),
        (BusProbe(max_handler_s=30.0), 0.0, -3600.0, ""),  # its clock was put back meanwhile
        (
            BusProbe(max_handler_s=30.0), 0.0, 41.0,
            "on_bus_message of T from stt has run for 41 s, its limit is 30 s",
        ),
        (BusProbe(max_handler_s=1.5), 0.0, 2.0, "its limit is 1.5 s"),
        (BusProbe(max_handler_s=30.0), 7.0, 41.0, "its event loop is blocked"),
    ],
)  # fmt: skip
def test_bus_problem(probe: BusProbe, silent_s: float, age_s: float | None, expected: str):
    """A silent loop comes first; a handler counts only where there is a limit."""
    running = None if age_s is None else handler(age_s)
    problem = bus_problem(probe, status_of(silent_s=silent_s, handler=running))
    assert (expected in problem) if expected else problem == ""


def test_next_process_begins_again():
    """Silence, handler and jobs are of one process."""
    status = status_of(silent_s=100.0, handler=handler(100.0))
    assert 3 == status.jobs_done
    status.begin_start()
    assert "" == bus_problem(BusProbe(max_handler_s=1.0), status)
    assert 0 == status.jobs_done


def test_lease_without_beat_is_not_silent():
    """A foreign lease that never had a beat tells nothing."""
    status = a_worker().status
    status.on_lease(Lease(name="w", incarnation="i", runner="r", host="h", pid=1), time.time())
    assert "" == bus_problem(BusProbe(), status)


class OneChild:
    """A process that runs."""

    pid, incarnation, code = 7, "a", None


def test_jobs_are_a_limit():
    """A worker is replaced at the limit, by its own count, and not before."""
    worker = a_worker(limits=LimitsSpec(jobs=10_000))
    child: Any = OneChild()
    worker.status.child, worker.status.state = child, "ready"
    rolling: Any = None  # for replicas only
    recycling = Recycling([worker], rolling)
    worker.status.jobs_done = 9_999
    recycling.check()
    assert not worker.target.restart_requested
    worker.status.jobs_done = 10_003
    recycling.check()
    assert worker.target.restart_requested
    assert "recycled: it has finished 10,003 jobs, its limit is 10,000" == worker.target.reason
