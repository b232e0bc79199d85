"""Several workers in one process: started in order, and ended together."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pbus import BaseWorker
from pbus.bus.memory import AsyncQueueBus
from pbus.leases import Lease
from pbus.process.hosting import Hosting
from pbus.process.supervisor.reports.state_events import StateEventQueue
from pbus.process.supervisor.worker.worker_status import WorkerStatus
from pbus.process.supervisor_events import Started, StateChanged
from pbus.runner import WorkerRunner
from pbus.running_handlers import RunningHandler
from pbus.topology.model import WorkerInstance

EVENTS: list[str] = []


class Part(BaseWorker):
    """Notes its start and stop; its start waits until a gate is open, and may fail."""

    def __init__(
        self, name: str, *, gate: asyncio.Event | None = None, error: str = "", ends: bool = False
    ) -> None:
        super().__init__(name)
        self._gate = gate
        self._error = error
        self._ends = ends

    async def start(self) -> None:
        EVENTS.append(f"{self.name} starts")
        if self._gate is not None:
            await self._gate.wait()
        if self._error:
            raise ValueError(self._error)
        if self._ends:
            await self.end("done")

    async def stop(self) -> None:
        EVENTS.append(f"{self.name} stops")


def hosted(*workers: tuple[BaseWorker, Sequence[str]], then: Any = None) -> tuple[int, list[str]]:
    """The exit code of a process with these workers, and what happened."""
    EVENTS.clear()

    async def main() -> int:
        runner = WorkerRunner(bus=AsyncQueueBus(), session="s", handle_sigint=False)
        hosting = Hosting(runner, workers)
        running = asyncio.ensure_future(hosting.run())
        if then is not None:
            await then(runner)
        return await running

    async def bounded() -> int:
        async with asyncio.timeout(20):  # an error of its own, not a cancelled runner
            return await asyncio.shield(asyncio.ensure_future(main()))

    return asyncio.run(bounded()), list(EVENTS)


def test_workers_start_after_those_that_they_need() -> None:
    """A worker is started when the others are ready, not only begun."""
    gate = asyncio.Event()

    async def then(runner: WorkerRunner) -> None:
        await runner.registry.wait_ready("free")
        while "b starts" not in EVENTS:
            await asyncio.sleep(0)
        assert "a starts" not in EVENTS
        gate.set()
        await runner.registry.wait_ready("last")
        await runner.end("enough")

    code, events = hosted(
        (Part("last"), ("a", "b")), (Part("a"), ("b",)), (Part("b", gate=gate), ()), (Part("free"), ()),
        then=then,
    )  # fmt: skip

    assert 0 == code
    starts = [event for event in events if event.endswith("starts")]
    assert ["b starts", "a starts", "last starts"] == [one for one in starts if one[0] != "f"]
    assert {"a stops", "b stops", "free stops", "last stops"} <= set(events)


def test_one_that_fails_ends_all() -> None:
    """The others end in order, and the exit code counts as failure."""
    code, events = hosted((Part("good"), ()), (Part("bad", error="no disk"), ("good",)))

    assert 1 == code
    assert "good stops" in events


def test_those_that_wait_are_not_started_any_more() -> None:
    """What a failed worker should have come before never starts."""
    code, events = hosted((Part("bad", error="no disk"), ()), (Part("late"), ("bad",)))

    assert (1, False) == (code, "late starts" in events)


def test_name_that_is_taken_ends_all(caplog: pytest.LogCaptureFixture) -> None:
    """A late worker that cannot be added is a failure of the process, with its reason in the log."""
    code, events = hosted((Part("a"), ()), (Part("a"), ("a",)))

    assert 1 == code
    assert "a stops" in events
    assert "worker a cannot be started" in caplog.text


def test_alone_worker_fails_as_ever() -> None:
    """One worker needs no one else to end it."""
    code, events = hosted((Part("x", error="no"), ()))

    assert (1, "x starts") == (code, events[0])


def test_session_end_is_a_good_end() -> None:
    """A worker that ends the session ends the process well."""
    code, events = hosted((Part("a", ends=True), ()), (Part("b"), ()))

    assert 0 == code
    assert {"a stops", "b stops"} <= set(events)


def test_events_are_told_of_all_workers() -> None:
    """Who follows states hears of each worker, with the same pid."""
    process = SimpleNamespace(names=("a", "b"))
    sent = StateEventQueue("sup", "p", {"a": process}.get)
    for event in (
        Started("a", 7, "f00"),
        StateChanged("a", "ready", ""),
        StateChanged("c", "failed", "x"),
    ):
        sent.on_event(event)

    assert [
        ("a", "starting", 7), ("b", "starting", 7), ("a", "ready", 7), ("b", "ready", 7),
        ("c", "failed", None),
    ] == [(one.worker, one.state, one.pid) for one in sent.drain()]  # fmt: skip


def lease(name: str, **figures: Any) -> Lease:
    """A worker's."""
    return Lease(name=name, incarnation="f", runner="r", host="h", pid=1, **figures)


def test_leases_of_all_workers_count(tmp_path: Any) -> None:
    """Active are all or none, jobs add up, and the handler that runs longest is looked at."""
    instance = WorkerInstance(name="a", spec=SimpleNamespace())  # type: ignore[arg-type]
    status = WorkerStatus(instance, lambda: 0.0)
    status.on_lease(lease("a", active=True, done=3, beat=90.0), 100.0)
    status.on_lease(
        lease("b", active=False, done=4, beat=99.0, handler=RunningHandler(name="b", since=50.0)),
        100.0,
    )
    assert (False, 7, 50.0, 1.0) == (
        status.is_active,
        status.jobs_done,
        status.handler.since,
        status.silent_s,
    )
    status.on_lease(
        lease("a", active=True, done=5, handler=RunningHandler(name="a", since=60.0)), 100.0
    )
    assert (9, "b") == (status.jobs_done, status.handler.name)
    status.on_lease(lease("b", active=True, done=4), 100.0)
    assert (True, "a") == (status.is_active, status.handler.name)
    status.begin_start()
    status.on_lease(lease("b", active=True, done=1), 100.0)
    assert (1, None) == (status.jobs_done, status.handler)
